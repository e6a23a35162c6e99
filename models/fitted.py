"""What does every family hand over once it is fitted?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

Views = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fitted:
    """A fitted model: its native log-odds for encoded rows, a way to the same as an ONNX graph, and how training went.

    The graph's inputs are named after the encoder's views; its one output `logit` has shape (n, 1).
    `curves` holds one list of values per training curve, one value per epoch or iteration; `kept` is the epoch or
    iteration, from 1, whose model this is, None where there are none.
    """

    logit: Callable[[Views], np.ndarray]
    export: Callable[[], onnx.ModelProto]
    curves: dict[str, list[float]] = field(default_factory=dict)
    kept: int | None = None
    stopped: str = ""
