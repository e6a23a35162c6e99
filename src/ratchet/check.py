"""Check: a question, a number, its limit, a verdict, the evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Verdict = Literal["pass", "fail", "undecided", "not_applicable"]
Side = Literal["at_most", "at_least"]


@dataclass(frozen=True)
class Check:
    """One answered question. A missing number is a failure, never a default.

    `low` and `high` bound the 95% interval of `value`; `n` counts the rows behind it; `unit` says what
    the number is. A blocking check that fails or is undecided holds a promotion; `needed` says how many more rows
    an undecided one would take, where that can be told. One that is not blocking is told, and nothing is done about it.
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
    needed: int | None = None
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """The name as a table shows it.

        >>> Check("volume", "?", "fail", "few", blocking=False).heading
        'volume (advisory)'
        """
        return self.name if self.blocking else f"{self.name} (advisory)"

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


def rows_needed(value: float, low: float, high: float, limit: float, n: int) -> int | None:
    """How many more rows would bring the limit out of the interval, if the value stayed; None where no number would.

    The interval's half-width shrinks with the square root of n.

    >>> rows_needed(0.03, 0.01, 0.05, 0.04, 100)
    300
    """
    gap = abs(limit - value)
    half = max(high - value, value - low)
    if not math.isfinite(half) or gap < half / 30:
        return None
    return max(math.ceil(n * (half / gap) ** 2 - n), 1)


def answered(
    name: str,
    question: str,
    interval: tuple[float, float, float],
    limit: float,
    side: Side,
    reason: str,
    n: int,
    unit: str,
    *,
    blocking: bool = True,
    evidence: dict[str, Any] | None = None,
) -> Check:
    """A check judged by its interval (value, low, high) against its limit, with the rows still needed if undecided."""
    value, low, high = interval
    verdict = judge(value, low, high, limit, side)
    return Check(
        name=name,
        question=question,
        verdict=verdict,
        reason=reason,
        value=value,
        low=low,
        high=high,
        limit=limit,
        n=n,
        unit=unit,
        blocking=blocking,
        needed=rows_needed(value, low, high, limit, n) if verdict == "undecided" else None,
        evidence=evidence or {},
    )


def undecided(name: str, question: str, reason: str, n: int, **more: Any) -> Check:
    """A check that has too little to go by, and says what it lacks."""
    return Check(name=name, question=question, verdict="undecided", reason=reason, n=n, **more)


def not_applicable(name: str, question: str, reason: str, **more: Any) -> Check:
    """A check whose question does not arise, and why."""
    return Check(name=name, question=question, verdict="not_applicable", reason=reason, **more)


def unsettled(checks: Iterable[Check], why: str) -> list[Check]:
    """The same checks, none of them passed: what would be a pass is undecided, and says why."""
    return [replace(c, verdict="undecided", reason=f"{why}; {c.reason}") if c.verdict == "pass" else c for c in checks]
