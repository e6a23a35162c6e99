"""The simple model: a logistic regression on scaled numbers and one-hot categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from models.fitted import Fitted, Views

OPSET = {"": 18, "ai.onnx.ml": 3}


def fit(train: Views, truth: np.ndarray, tune: Views, tune_truth: np.ndarray, params: dict[str, Any], seed: int) -> Fitted:
    """Fit on the `dense` view. `params`: C (inverse penalty), max_iter."""
    model = LogisticRegression(C=params["C"], max_iter=params["max_iter"], random_state=seed)
    model.fit(train["dense"].astype(np.float64), truth)
    options = {id(model): {"zipmap": False, "raw_scores": True}}
    return Fitted(
        logit=lambda views: model.decision_function(views["dense"].astype(np.float64)),
        export=lambda: _second_column(to_onnx(model, train["dense"][:1], options=options, target_opset=OPSET)),
        stopped=f"converged in {int(model.n_iter_[0])} iterations",
    )


def _second_column(model: onnx.ModelProto) -> onnx.ModelProto:
    """The converter answers a label and two raw scores; keep the score of label 1, and name the ends as we do."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["dense" if name == graph.input[0].name else name for name in node.input]
    graph.input[0].name = "dense"
    graph.initializer.append(helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1]))
    graph.node.append(helper.make_node("Gather", [graph.output[1].name, "one"], ["logit"], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logit", onnx.TensorProto.FLOAT, [None, 1]))
    return model
