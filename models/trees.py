"""The boosted trees: histogram gradient boosting over bin codes, exported exactly.

The features are binned in float64 outside the graph, so that the trees split whole numbers at midpoints such as
3.5, which float32 holds exactly; a float32 export over raw values can send a row down the wrong branch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper
from sklearn.ensemble import HistGradientBoostingClassifier

from models.fitted import Fitted, Views


def fit(train: Views, truth: np.ndarray, tune: Views, tune_truth: np.ndarray, params: dict[str, Any], seed: int) -> Fitted:
    """Fit on the `bins` view; the number of trees is the one with the lowest log loss on the tuning rows."""
    longest = HistGradientBoostingClassifier(
        max_iter=params["max_iter"],
        learning_rate=params["learning_rate"],
        max_leaf_nodes=params["max_leaf_nodes"],
        min_samples_leaf=params["min_samples_leaf"],
        l2_regularization=params["l2_regularization"],
        early_stopping=False,
        random_state=seed,
    ).fit(train["bins"], truth)
    curves = {
        "train_log_loss": _staged(longest, train["bins"], truth),
        "tune_log_loss": _staged(longest, tune["bins"], tune_truth),
    }
    trees = int(np.argmin(curves["tune_log_loss"])) + 1
    model = longest.set_params(max_iter=trees)
    model._predictors = model._predictors[:trees]
    return Fitted(
        logit=lambda views: model.decision_function(views["bins"]),
        export=lambda: export(model, train["bins"].shape[1]),
        curves=curves,
        kept=trees,
        stopped=f"{trees} of {params['max_iter']} trees: the tuning loss is lowest there",
    )


def _staged(model: HistGradientBoostingClassifier, rows: np.ndarray, truth: np.ndarray) -> list[float]:
    sign = 2 * truth - 1
    # The log loss by its log-odds: after 150 trees that is seconds less than a metric's own checks.
    return [float(np.logaddexp(0, -sign * logit.reshape(-1)).mean()) for logit in model._staged_raw_predict(rows)]


def export(model: HistGradientBoostingClassifier, columns: int) -> onnx.ModelProto:
    """The ensemble as one ONNX TreeEnsembleRegressor whose output is the log-odds, shape (n, 1)."""
    names = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    nodes: dict[str, list[Any]] = {name: [] for name in names}
    missing: list[int] = []
    leaf: dict[str, list[Any]] = {"treeids": [], "nodeids": [], "ids": [], "weights": []}
    for tree, (predictor,) in enumerate(model._predictors):
        for place, node in enumerate(predictor.nodes):
            is_leaf = bool(node["is_leaf"])
            row = (
                tree,
                place,
                0 if is_leaf else int(node["feature_idx"]),
                0.0 if is_leaf else float(node["num_threshold"]),
                "LEAF" if is_leaf else "BRANCH_LEQ",
                0 if is_leaf else int(node["left"]),
                0 if is_leaf else int(node["right"]),
            )
            for name, value in zip(names, row, strict=True):
                nodes[name].append(value)
            missing.append(int(node["missing_go_to_left"]))
            if is_leaf:
                for name, value in zip(leaf, (tree, place, 0, float(node["value"])), strict=True):
                    leaf[name].append(value)
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["bins"],
        ["logit"],
        domain="ai.onnx.ml",
        n_targets=1,
        base_values=[float(model._baseline_prediction[0, 0])],
        nodes_missing_value_tracks_true=missing,
        **{f"nodes_{name}": values for name, values in nodes.items()},
        **{f"target_{name}": values for name, values in leaf.items()},
    )
    graph = helper.make_graph(
        [ensemble],
        "trees",
        [helper.make_tensor_value_info("bins", onnx.TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("logit", onnx.TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)
