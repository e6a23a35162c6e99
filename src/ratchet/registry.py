"""Which checks are there? Every one is listed here, so that one conformance suite can run over all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

Stage = Literal["release", "monitor"]
Function = TypeVar("Function", bound=Callable[..., object])

CHECKS: dict[str, Stage] = {}
# What watches, known before the modules that do are read: problem.yaml names them.
MONITORS = (
    "clock",
    "concept_drift",
    "data_drift",
    "decay",
    "disparity",
    "estimate",
    "feedback",
    "joint_drift",
    "label_classes",
    "label_conflicts",
    "live_slices",
    "probes",
    "quality",
    "silent",
    "skew",
    "validity",
    "volume",
)


def registered(name: str, stage: Stage) -> Callable[[Function], Function]:
    """Declare a function as the maker of the checks called `name`, or `name:part`."""

    def mark(function: Function) -> Function:
        CHECKS[name] = stage
        return function

    return mark
