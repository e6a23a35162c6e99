"""How do log-odds become probabilities that mean what they say? Platt scaling, inside the graph."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from sklearn.linear_model import LogisticRegression


def platt(logit: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Slope and intercept on the log-odds of n tuning rows (Platt, 1999)."""
    model = LogisticRegression(C=1e6).fit(logit.reshape(-1, 1), truth)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def append(model: onnx.ModelProto, slope: float, intercept: float) -> onnx.ModelProto:
    """The graph with its output `logit` turned into a calibrated `probability`, shape (n, 1)."""
    graph = model.graph
    for name, value in (("slope", slope), ("intercept", intercept)):
        graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value]))
    graph.node.extend(
        [
            helper.make_node("Mul", ["logit", "slope"], ["scaled"]),
            helper.make_node("Add", ["scaled", "intercept"], ["calibrated"]),
            helper.make_node("Sigmoid", ["calibrated"], ["probability"]),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("probability", onnx.TensorProto.FLOAT, [None, 1]))
    onnx.checker.check_model(model)
    return model
