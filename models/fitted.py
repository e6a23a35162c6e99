"""What does every family hand over once it is fitted?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

Views = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fitted:
    """A fitted model: its native log-odds for encoded rows, the same as an ONNX graph, and how training went.

    The graph's inputs are named after the encoder's views; its one output `logit` has shape (n, 1).
    `curves` holds one list of values per training curve, one value per epoch or iteration.
    """

    logit: Callable[[Views], np.ndarray]
    graph: onnx.ModelProto
    curves: dict[str, list[float]] = field(default_factory=dict)
    stopped: str = ""
