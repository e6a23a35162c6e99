"""What does this graph answer for these rows? The same code offline and in the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from ratchet.data.encoding import Encoder


class Scorer:
    """An ONNX graph with its encoder. The graph's input names say which of the encoder's views it takes."""

    def __init__(self, graph: bytes, encoder: Encoder) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._views = [item.name for item in self._session.get_inputs()]
        self._encoder = encoder

    def probability(self, columns: Mapping[str, Any]) -> np.ndarray:
        """The probability of label 1 for n rows given column by column, shape (n,), float64 of a float32.

        A row's answer is the same to the last bit whichever rows come with it.
        """
        views = self._encoder.encode(columns, self._views)
        rows = len(next(iter(views.values())))
        if rows == 1:
            # A single row goes through another kernel, which adds up in another order; two do not.
            views = {name: np.repeat(view, 2, axis=0) for name, view in views.items()}
        (answer,) = self._session.run(None, views)
        return np.asarray(answer, dtype=np.float64).reshape(-1)[:rows]
