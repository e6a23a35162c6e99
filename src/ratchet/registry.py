"""Which checks are there? Every one is listed here, so that one conformance suite can run over all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

Stage = Literal["release", "monitor"]
Function = TypeVar("Function", bound=Callable[..., object])

CHECKS: dict[str, Stage] = {}
# The metrics that a problem may state a floor of (for a loss: a ceiling); the last two are those of a number that is predicted, not a class.
FLOORS = ("accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc", "brier", "log_loss", "mse", "mae")
# What watches, known before the modules that do are read: problem.yaml names them. By name the parts that each tells of; None is a column.
MONITORS: dict[str, tuple[str, ...] | None] = {
    "clock": (),
    "columns": (),
    "concept_drift": (),
    "data_drift": None,
    "decay": (),
    "disparity": None,
    "estimate": (),
    "feedback": ("exposure", "labels", "slice"),
    "joint_drift": (),
    "label_classes": (),
    "label_conflicts": (),
    "label_ids": (),
    "live_slices": (),
    "probes": ("boundary", "duplicates", "mixes"),
    "quality": ("accuracy", "completeness", "consistency", "timeliness", "uniqueness", "validity"),
    "silent": ("confidence", "outliers"),
    "skew": ("features", "scores"),
    "validity": (),
    "volume": (),
}


def registered(name: str, stage: Stage) -> Callable[[Function], Function]:
    """Declare a function as the maker of the checks called `name`, or `name:part`."""

    def mark(function: Function) -> Function:
        CHECKS[name] = stage
        return function

    return mark
