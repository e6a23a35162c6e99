"""Has the relation between features and outcome moved? A detector over the champion's wrong decisions, in the order in which labels came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from river import base, drift

from ratchet.check import Check, undecided
from ratchet.monitoring.autocorrelation import inflation
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Are decisions as often right as they were, in the order in which labels came?"
# Found by experiment: of 100,000 stable rows few streams see an alarm; a rise of 10 points takes some 400 rows (docs/results/concept.md).
DELTA, CLOCK = 0.0045, 8
# The level after a change is told by so many rows.
RECENT = 300
YOUNG = 50
# How autocorrelated decisions are is told by the newest of them, up to so many, and told anew when as many more are in; first of so few.
TOLD_BY, FIRST_TOLD = 8000, 500
MOST_TOGETHER = 128
# By name: a detector as river has it, fed with one wrong (1) or right (0) decision at a time.
DETECTORS: dict[str, Callable[[], Any]] = {
    "adwin": lambda: drift.ADWIN(delta=DELTA, clock=CLOCK),  # type: ignore[no-untyped-call]
    "page_hinkley": lambda: drift.PageHinkley(mode="up"),
    "kswin": lambda: drift.KSWIN(seed=0),
    "ddm": drift.binary.DDM,
    "eddm": drift.binary.EDDM,
    "hddm_a": drift.binary.HDDMA,
    "hddm_w": drift.binary.HDDMW,
}


@dataclass(frozen=True)
class Change:
    """A change that a detector saw after so many rows: the share of wrong decisions before it and since."""

    at: int
    before: float
    after: float


class Stream:
    """Wrong decisions in order, chunk by chunk; it keeps what the detector keeps, and the newest 8,000.

    A detector takes what it is fed for independent. Where decisions are autocorrelated, so that n of them tell as much as n / k would, it is fed
    with the mean of every k, and with nothing before k (`together`) is told of the first 500; then it gets these too. One that takes only
    right and wrong gets each as it comes.
    """

    def __init__(self, detector: str | Callable[[], Any], chunks: Iterable[np.ndarray] = ()) -> None:
        """A detector by its name, or what makes one, fed with chunks of shape (n,)."""
        self._make = DETECTORS[detector] if isinstance(detector, str) else detector
        self._detector = self._make()
        self._newest: deque[tuple[int, float]] = deque(maxlen=TOLD_BY)
        self._tell_at, self._told = FIRST_TOLD, 1
        self.together: int | None = 1 if isinstance(self._detector, base.BinaryDriftDetector) else None
        self._held: list[float] = []
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._sum, self._rows = 0.0, 0
        self.rows = self.passed_over = 0
        self.changes: list[Change] = []
        for chunk in chunks:
            self.feed(chunk)

    def feed(self, wrong: np.ndarray) -> None:
        """The next n decisions, shape (n,): 1 where wrong, 0 where right; those that are not to judge are NaN, and keep their place."""
        for value in wrong.astype(float).tolist():
            self.rows += 1
            if value != value:
                self.passed_over += 1
                continue
            self._newest.append((self.rows, value))
            self._take(self.rows, value)
            if self.rows - self.passed_over == self._tell_at:
                self._tell_dependence()

    def _take(self, at: int, value: float) -> None:
        """One decision, of such a row, into the level and the detector."""
        # What has left the recent rows is of the level before.
        if len(self._recent) == RECENT:
            self._sum += self._recent[0]
            self._rows += 1
        self._recent.append(value)
        if self._detect(value):
            self._close(at)

    def _detect(self, value: float) -> bool:
        """Whether the detector sees a change with this decision; it is asked once per `together` of them."""
        if self.together is None:
            return False
        self._held.append(value)
        if len(self._held) < self.together:
            return False
        self._detector.update(sum(self._held) / len(self._held))
        self._held.clear()
        return bool(self._detector.drift_detected)

    def _tell_dependence(self) -> None:
        """Feed the detector with more or fewer at a time where the newest decisions are more or less autocorrelated than they were."""
        self._tell_at += min(self._tell_at, TOLD_BY)
        if isinstance(self._detector, base.BinaryDriftDetector):
            return
        found, before = _together(np.array([value for _, value in self._newest])), self._told
        together, self._told = max(found, before), found
        if together != self.together:
            self.together, self._detector = together, self._make()
            self._held.clear()
            self._take_again()

    def _take_again(self) -> None:
        """Feed the detector, being new, with what came since the last change: one that began and was not noted yet is seen now, or later."""
        since = self._rows + len(self._recent)
        again = list(self._newest)[-since:] if since else []
        self._sum += sum(self._recent) - sum(value for _, value in again)
        self._rows = since - len(again)
        self._recent.clear()
        for at, value in again:
            self._take(at, value)

    def _close(self, at: int) -> None:
        """Note a change that was seen at a row; what comes from there on is of another level."""
        recent = list(self._recent)
        if self._rows:
            before, after = self._sum / self._rows, sum(recent) / RECENT
        else:
            # The last change is young: what has come since is the level before this one, its end the level after.
            before, after = float(np.mean(recent)), float(np.mean(recent[-YOUNG:]))
        self.changes.append(Change(at, before, after))
        self._recent.clear()
        self._sum, self._rows = 0.0, 0

    @property
    def level(self) -> float:
        """The share of wrong decisions since the last change, of 300 rows or more; not a number where there is none."""
        total, rows = self._sum + sum(self._recent), self._rows + len(self._recent)
        if self.changes and rows < RECENT:
            total, rows = total + RECENT * self.changes[-1].after, rows + RECENT
        return total / rows if rows else float("nan")

    def standing(self, least: float, usual: float = 0.0) -> Change | None:
        """The rise of which half or more is still there, and `least` or more; None where there is none.

        Whether a change was a rise is told by the rows that follow it: a quick detector sees it before the level shows it. Up to the
        `usual` share a rise is none: decisions that were better for a while, and are as they were, do no harm.
        """
        found: Change | None = None
        highest = 0.0
        if not self.changes:
            return None
        followed = [*(change.before for change in self.changes[1:]), self.level]
        for change, after in zip(self.changes, followed, strict=True):
            if found and highest - found.before < least:
                # It mattered not yet: what makes it matter begins here.
                found = replace(change, before=found.before)
            if found is None:
                before = max(change.before, usual)
                found, highest = (replace(change, before=before), change.after) if after > before else (None, 0.0)
            highest = max(highest, after)
            if found and after <= (found.before + highest) / 2:
                found, highest = None, 0.0
        return found if found and self.level - found.before >= least else None


def _together(values: np.ndarray) -> int:
    """The least power of two so that means of so many values, shape (n,), are not autocorrelated, as far as n tell."""
    size = 1
    while size < MOST_TOGETHER and inflation(values[: len(values) // size * size].reshape(-1, size).mean(axis=1)) > 1:
        size *= 2
    return size


@registered("concept_drift", "monitor")
def concept_drift(problem: Problem, stream: Stream, usual: float = 0.0) -> Check:
    """Whether the share of wrong decisions has risen, by a detector (ADWIN; Bifet and Gavaldà, 2007) over the labelled stream.

    `stream` was fed with the champion's decisions since it answers, in the order in which their labels came; `usual` is the share that was
    wrong of the rows held out at release. Only rises above that count, and only by `watch.min_rise` or more; an alarm is taken back once
    half of its rise is. The same stream gives the same verdict, however it is cut into chunks.
    """
    n, limit, unit = stream.rows - stream.passed_over, problem.watch.min_rise, "share of decisions"
    least = max(problem.watch.min_window, FIRST_TOLD)
    if n < least:
        reason = f"{n} labels of this version are in; {least} are needed"
        return undecided("concept_drift", QUESTION, reason, n, limit=limit, unit=unit)
    changes = [[change.at, change.before, change.after] for change in stream.changes]
    harm = stream.standing(limit, usual)
    found = harm or stream.standing(least=0.0, usual=usual)
    if found is None:
        released = f", {usual:.1%} were at release" if usual else ""
        reason = f"{problem.watch.detector} saw no rise that lasts in {n:,} labelled decisions; {stream.level:.1%} are wrong{released}"
        return Check("concept_drift", QUESTION, "pass", reason, value=0.0, limit=limit, n=n, unit=unit, evidence={"changes": changes})
    then = "before" if found.before > usual else "at release"
    reason = (
        f"{problem.watch.detector} saw a rise after {found.at:,} of {stream.rows:,} labelled decisions: {found.before:.1%} were wrong {then}, "
        f"{stream.level:.1%} since; {limit:.1%} matters"
    )
    return Check(
        name="concept_drift",
        question=QUESTION,
        verdict="fail" if harm else "pass",
        reason=reason,
        value=stream.level - found.before,
        limit=limit,
        n=n,
        unit=unit,
        evidence={"changes": changes, "at": found.at},
    )
