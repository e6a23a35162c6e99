"""How small can a network be made, and still decide as it does? Whole numbers for its weights, or a student of its answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from models import network
from models.fitted import Fitted, Views

CALIBRATION_ROWS = 1024
OPSET = 21


class _Rows(CalibrationDataReader):  # type: ignore[misc]
    """Rows by which the range of every activation is found."""

    def __init__(self, views: Views) -> None:
        self._rows: Iterator[Views] = iter(
            {name: view[start : start + CALIBRATION_ROWS] for name, view in views.items()}
            for start in range(0, len(next(iter(views.values()))), CALIBRATION_ROWS)
        )

    def get_next(self) -> Views | None:
        """The next rows, or None."""
        return next(self._rows, None)


def quantised(graph: bytes, views: Views, spared: int = 0) -> bytes:
    """The graph with weights of 8 bits and activations of 16, calibrated on rows of the training (Jacob et al., 2018).

    `views` holds the graph's inputs, of as many rows as there are: what lies outside their range is cut off. The first and the last
    multiplication stay as they are: they are small, and what they round is felt most; so do `spared` more after the first. ValueError where
    that leaves none.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, ready, after = (str(Path(folder) / name) for name in ("before.onnx", "ready.onnx", "after.onnx"))
        # The graph's own version of the operators knows no numbers of 16 bits.
        onnx.save(onnx.version_converter.convert_version(onnx.load_model_from_string(graph), OPSET), before)
        quant_pre_process(before, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            after,
            _Rows(views),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt16,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=_left_out(ready, spared),
        )
        return onnx.load(after).SerializeToString(deterministic=True)


def _left_out(path: str, spared: int) -> list[str]:
    names = [node.name for node in onnx.load(path).graph.node if node.op_type in ("MatMul", "Gemm")]
    if len(names) < spared + 3:
        raise ValueError(f"of {len(names)} multiplications none is left to quantise")
    return [*names[: 1 + spared], names[-1]]


def student(train: Views, teacher: np.ndarray, tune: Views, teacher_tune: np.ndarray, params: dict[str, Any], seed: int) -> Fitted:
    """A smaller network that learns the teacher's probabilities, shape (n,), in place of the labels (Hinton et al., 2015).

    `params` are the network's, with the student's own width and blocks.
    """
    return network.fit(train, teacher, tune, teacher_tune, params, seed)
