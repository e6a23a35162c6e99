"""Check: a question, a number, its limit, a verdict, the evidence."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "undecided", "not_applicable"]
Side = Literal["at_most", "at_least"]


@dataclass(frozen=True)
class Check:
    """One answered question. A missing number is a failure, never a default.

    `low` and `high` bound the 95% interval of `value`; `n` counts the rows behind it; `unit` says what
    the number is. A blocking check that fails or is undecided holds a promotion.
    """

    name: str
    question: str
    verdict: Verdict
    reason: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    n: int = 0
    unit: str = ""
    blocking: bool = True
    evidence: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The check as plain data."""
        return asdict(self)


def from_dict(data: dict[str, Any]) -> Check:
    """The check that `as_dict` made plain."""
    return Check(**data)


def judge(value: float | None, low: float | None, high: float | None, limit: float, side: Side) -> Verdict:
    """The verdict on an interval against a limit.

    The whole interval on the right side of the limit passes, the whole interval on the wrong side fails,
    an interval that holds the limit is undecided, and a missing or non-finite number fails.

    >>> judge(0.03, 0.02, 0.04, 0.05, "at_most")
    'pass'
    >>> judge(0.05, 0.03, 0.07, 0.05, "at_most")
    'undecided'
    >>> judge(float("nan"), 0.0, 1.0, 0.05, "at_most")
    'fail'
    """
    numbers = (value, low, high)
    if any(number is None or not math.isfinite(number) for number in numbers):
        return "fail"
    assert low is not None
    assert high is not None
    if side == "at_least":
        low, high, limit = -high, -low, -limit
    if high <= limit:
        return "pass"
    return "fail" if low > limit else "undecided"


def undecided(name: str, question: str, reason: str, n: int, **more: Any) -> Check:
    """A check that has too little to go by, and says what it lacks."""
    return Check(name=name, question=question, verdict="undecided", reason=reason, n=n, **more)


def not_applicable(name: str, question: str, reason: str, **more: Any) -> Check:
    """A check whose question does not arise, and why."""
    return Check(name=name, question=question, verdict="not_applicable", reason=reason, **more)
