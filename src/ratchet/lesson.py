"""What does a retraining learn from, and what must never teach?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ratchet.audit import AUDIT

# A check that one of these makes says that the rows are not what they seem: retraining would learn the fault.
FAULTS = ("validity", "columns", "skew", "clock", "quality:completeness", "quality:consistency", "quality:uniqueness", "quality:validity")
# Somebody tries the model out: a person must look before anything is learnt from such rows.
PROBED = ("probes:duplicates", "probes:boundary")
# Labels that are not what they seem: harm that they show may be none, and retraining would learn from them.
DOUBTED = ("feedback:labels", "feedback:slice", "quality:accuracy", "label_classes", "label_conflicts")
# A difference is taken for more than chance beyond so many standard errors (5%, one-sided).
ONE_SIDED = 1.645
# The share of labels since a change that may be of predictions of before it.
LATE = 0.05
# Places of the log, the first and the last.
Span = tuple[int, int]


@dataclass(frozen=True)
class Lesson:
    """What a retraining learns from, and is judged on: the labelled rows of the log from its place `since` on; 0 is every row there is.

    Rows of the stretches in `without` were not what they seemed, and are left out; in those of `audited` labels were doubted, and only what
    audits found counts. So it does after the place `until`: of younger rows labels of one class come before those of the other, or may.
    """

    since: int = 0
    without: tuple[Span, ...] = ()
    audited: tuple[Span, ...] = ()
    until: int | None = None

    def teaches(self, places: np.ndarray, provenance: np.ndarray) -> np.ndarray:
        """Which of n labelled rows of the log it takes, shape (n,), by their places and their labels' provenance."""
        doubted = self.doubts(places) & (provenance != AUDIT)
        return np.asarray((places >= self.since) & ~inside(self.without, places) & ~doubted)

    def doubts(self, places: np.ndarray) -> np.ndarray:
        """In which of n places of the log labels are not to be relied on, shape (n,)."""
        young = places > self.until if self.until is not None else np.zeros(len(places), dtype=bool)
        return np.asarray(inside(self.audited, places) | young)

    @property
    def said(self) -> str:
        """The same in words."""
        since = f"labelled rows from place {self.since:,} of the log on" if self.since else "every labelled row"
        never = [f"those of {_counted(self.without)} blocked or probed"] if self.without else []
        never += [f"labels that no audit found in {_counted(self.audited)} doubted"] if self.audited else []
        if self.until is not None:
            never.append(f"those after place {self.until:,}, for labels of one class come sooner than those of the other, or may")
        return since + (f", except {' and '.join(never)}" if never else "")


EVERYTHING = Lesson()


def learn_from(begun: int, ledger: Iterable[dict[str, Any]], sound: Sequence[Span] = ()) -> Lesson:
    """What a retraining may learn from, once a new population or concept has begun at a place of the log; 1 is where the log begins.

    Where only the population has moved, older rows teach as well: what was true of a row still is. Where the concept has turned, they teach
    the old one. Which it is, `settled` tells. `ledger` is the evidence of earlier decisions: windows that a check blocked, or that probed
    the model, never teach, and labels that were doubted do not. Each tells (`kept_out`) what was known of those before it, so that the
    newest few are enough; and (`rows`) since when nobody had looked, and in which stretches its version answered: what another one answered
    in between is not meant. Stretches that a person found `sound` teach all the same.
    """
    without: list[Span] = []
    audited: list[Span] = []
    for evidence in ledger:
        known = evidence.get("kept_out", {"without": (), "audited": ()})
        without += [(first, last) for first, last in known["without"]]
        audited += [(first, last) for first, last in known["audited"]]
        failed = [check for check in evidence["checks"] if check["verdict"] == "fail" and check["blocking"]]
        inputs, rows = evidence["inputs"], evidence.get("rows", {})
        if any(called(check["name"], (*FAULTS, *PROBED)) for check in failed):
            without += _answered((rows.get("since", inputs["from"]), inputs["to"]), rows.get("answered"))
        doubted = [check["evidence"] for check in failed if called(check["name"], DOUBTED)]
        audited += [span for told in doubted if "from" in told for span in _answered((told["from"], told["to"]), rows.get("answered"))]
    return Lesson(begun if begun > 1 else 0, _less(_merged(without), sound), _less(_merged(audited), sound))


def begins(onset: int, places: Sequence[int], window: int, between: Callable[[int, int], int]) -> int:
    """The log's place where a new concept begins, which `concept_drift` saw turn.

    `places` are those of the predictions whose labels came from its alarm's on, in that order. Of labels that come in another order than
    their predictions a twentieth may be of before. An alarm comes some hundred labels after its change: within a `window` after the place
    where the population moved (`onset`; 1 where it did not), both are one; `between` counts predictions from one place on and before
    another.
    """
    alarm, *since = places
    # Where no label has come since, what is to come begins after the last one that did.
    turned = int(np.quantile(since, LATE, method="lower")) if since else alarm + 1
    return onset if 1 < onset <= turned and between(onset, turned) <= window else turned


def settled(lesson: Lesson, told: np.ndarray, truth: np.ndarray, entities: np.ndarray, threshold: float) -> tuple[Lesson, str]:
    """Whether rows since the change teach better alone, and why, in words.

    `told` are two models' probabilities for n rows since the change that neither has seen, shape (n, 2): of such rows alone, and of all
    rows; `truth` and `entities`, whom a row is of, have shape (n,). Older ones are left out where that is better beyond chance, by the
    Brier score, paired (the window is chosen so by Klinkenberg and Joachims, 2000): else they teach more than they mislead. A model that
    then decides more rows wrongly from `threshold` on would be refused for its negative flips, whatever else it does better.
    """
    every = replace(lesson, since=0)
    if len(told) < 2:
        return every, f"too few labelled rows since place {lesson.since:,} of the log to tell whether they would teach better alone"
    losses = np.square(told - truth[:, None])
    # Rows of one entity are alike: what each brings about counts, not each row.
    less = pd.Series(losses[:, 0] - losses[:, 1]).groupby(entities).mean().to_numpy()
    mean, error = float(less.mean()), float(less.std(ddof=1) / np.sqrt(len(less)))
    better = mean < -ONE_SIDED * error
    wrong = ((told >= threshold) != (truth[:, None] == 1)).mean(axis=0)
    verdict = "are" if better else "are not provably"
    said = f"rows from place {lesson.since:,} of the log on {verdict} answered better by a model of such rows alone"
    said += f": Brier score {mean:+.4f} ± {error:.4f}, {wrong[0]:.1%} decided wrongly instead of {wrong[1]:.1%}, on {len(told):,} of them"
    return (lesson if better and wrong[0] <= wrong[1] else every), said


def inside(spans: Sequence[Span], places: np.ndarray) -> np.ndarray:
    """Which of n places of the log stand in one of the spans, shape (n,).

    >>> inside([(1, 2), (5, 5)], np.array([1, 3, 5])).tolist()
    [True, False, True]
    """
    within = np.zeros(len(places), dtype=bool)
    for first, last in spans:
        within |= (places >= first) & (places <= last)
    return within


def called(name: str, names: Sequence[str]) -> bool:
    """Whether a check is called so, or `name:part`.

    >>> called("skew:scores", ("skew",)), called("quality:accuracy", ("quality:validity",))
    (True, False)
    """
    return name in names or name.split(":")[0] in names


def _answered(span: Span, stretches: Iterable[Span] | None) -> list[Span]:
    """What of a span lies in stretches of the log; all of it where these are not known.

    >>> _answered((5, 30), [(1, 9), (20, 40)]), _answered((5, 30), None)
    ([(5, 9), (20, 30)], [(5, 30)])
    """
    parts = [span] if stretches is None else [(max(span[0], first), min(span[1], last)) for first, last in stretches]
    return [(first, last) for first, last in parts if first <= last]


def _counted(spans: Sequence[Span]) -> str:
    return "one stretch that was" if len(spans) == 1 else f"{len(spans)} stretches that were"


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same places in as few spans as can be, in order.

    >>> _merged([(5, 9), (1, 6), (20, 30)])
    ((1, 9), (20, 30))
    """
    made: list[Span] = []
    for first, last in sorted(spans):
        if made and first <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(made[-1][1], last))
        else:
            made.append((first, last))
    return tuple(made)


def _less(spans: Sequence[Span], sound: Sequence[Span]) -> tuple[Span, ...]:
    """What is left of spans outside of others.

    >>> _less([(1, 9), (20, 30)], [(5, 22), (25, 26)])
    ((1, 4), (23, 24), (27, 30))
    """
    left = list(spans)
    for first, last in sound:
        parts = [((one, min(other, first - 1)), (max(one, last + 1), other)) for one, other in left]
        left = [(one, other) for pair in parts for one, other in pair if one <= other]
    return tuple(left)
