"""What does the watch say, batch by batch, of a log whose truth is known? A release, its answers, and labels that come some batches later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from models.train import train
from ratchet.audit import AUDIT, drawn
from ratchet.check import Check
from ratchet.contract import Contract
from ratchet.data.entities import coded, newest_of_each
from ratchet.data.splits import split
from ratchet.decision import Decision
from ratchet.lesson import EVERYTHING, Lesson, begins, inside, learn_from
from ratchet.monitoring.concept_drift import Stream
from ratchet.monitoring.decay import WINDOWS, at_release
from ratchet.monitoring.estimate import NOTHING, Audited, Audits, relied_on
from ratchet.monitoring.excess import MOST_ROWS
from ratchet.monitoring.joint_drift import joint_drift
from ratchet.monitoring.label_ids import label_ids
from ratchet.monitoring.panel import Released, by_column, held_of, on_labels, on_the_way, told_apart, without_labels
from ratchet.monitoring.quality import LATELY, usually_lacking
from ratchet.monitoring.silent_failure import live_slices
from ratchet.monitoring.skew import score_skew
from ratchet.problem import Problem
from ratchet.retraining import Means, drifts, watch
from ratchet.scoring import Scorer
from ratchet.settings import parameters

REFERENCE_ROWS, AGED_ROWS, AUDITED_BATCHES = 5000, 20_000, 10
# Looks at the log before the first batch: they tell how many rows are usual.
LOOKED = 20
# What is known of a row behind the log's back: which labels will come, the first and what no audit found, what one will find, the true P(y | x).
BEHIND = ("first", "outcome", "found", "p")
Answer = Callable[[pd.DataFrame], np.ndarray]
# What can lead to retraining; what looks at rows besides; all monitors.
Scope = Literal["harm", "rows", "everything"]


def release(problem: Problem, contract: Contract, rows: pd.DataFrame, seed: int) -> tuple[Released, Answer]:
    """Trees trained on a first batch, as their release would tell of it, and what they answer."""
    params = parameters()["train"] | {"families": ["trees"]}
    names = [column.name for column in contract.features]
    sides = split(rows[contract.entity])
    encoder, (trees,) = train(rows, sides, contract, problem.threshold, params, seed)
    answer = Scorer(trees.graph, encoder).probability
    held, trained, following = rows[np.isin(sides, ("select", "test"))], rows[sides == "train"], rows.tail(MOST_ROWS)
    distinct = newest_of_each(contract, held)
    told = at_release(problem, answer(distinct), distinct[contract.target].to_numpy(float))
    return Released(
        contract=contract,
        encoder=encoder,
        reference=trained[names].assign(**coded(contract, trained)).sample(min(REFERENCE_ROWS, len(trained)), random_state=0).sort_index(),
        held=held[names].assign(**coded(contract, held), probability=answer(held), truth=held[contract.target]),
        relies_on=tuple(relied_on(answer, held, names)),
        mean=told["mean"],
        error=told["error"],
        threshold=problem.threshold,
        newest=following[names].assign(**coded(contract, following)),
    ), answer


@dataclass
class Watched:
    """A release and its log; each batch takes the schedule's time, and labels and audits come `delay` batches later."""

    problem: Problem
    released: Released
    answer: Answer
    delay: int
    usual: int
    batches: list[pd.DataFrame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stream = Stream(self.problem.watch.detector)
        self._quiet = 0
        # What was fed to the stream, and what of it was left out; each batch of labels once.
        self._told: list[pd.DataFrame] = []
        # Of each batch, how many labels were sent of predictions that nobody made.
        self._strays: list[int] = []
        self._lesson = EVERYTHING
        self._ledger: list[dict[str, Any]] = []
        self._every = pd.Timedelta(seconds=self.problem.watch.every_seconds)
        self._start = pd.Timestamp("2025-01-01")
        # They vary a little, as counts do.
        rows = np.random.default_rng(0).poisson(self.usual, LOOKED)
        before = self._start - self._every * np.arange(LOOKED - 1, -1, -1)
        self._looks = list(zip(pd.DatetimeIndex(before).to_pydatetime(), np.cumsum(rows).tolist(), rows.tolist(), strict=True))

    def arrive(
        self,
        rows: pd.DataFrame,
        probability: np.ndarray,
        outcome: np.ndarray | None = None,
        before: np.ndarray | None = None,
        astray: bool = False,
        stands_still: bool = False,
    ) -> pd.DataFrame:
        """A batch as it is logged, n rows with their target.

        `outcome` are the labels that come back, NaN where none does, or where it was sent of another prediction, which nobody made (`astray`);
        `before` those that they replace. Audits come after both.
        """
        seen, place = self._looks[-1][1], len(self.batches)
        now = self._start + self._every * (place + 1)
        moments = self._start if stands_still else now - self._every * np.linspace(1, 0, len(rows), endpoint=False)
        decided = (probability >= self.problem.threshold).astype(float)
        truth = rows[self.released.contract.target].to_numpy(float)
        outcome = truth if outcome is None else outcome
        before = outcome if before is None else before
        self._strays.append(int(np.isnan(outcome).sum()) if astray else 0)
        ids = [f"{place}:{n}" for n in range(len(rows))]
        share = np.full(len(rows), self.problem.watch.audit_share)
        found = np.where(drawn(pd.Series(ids), share), truth, np.nan)
        self.batches.append(
            rows.assign(
                id=ids,
                seq=seen + 1 + np.arange(len(rows)),
                at=moments,
                label_at=pd.NaT,
                probability=probability,
                label=decided,
                first=np.where(np.isfinite(before), before, found),
                outcome=outcome,
                found=found,
                truth=np.where(np.isfinite(found), found, outcome),
                provenance=np.where(np.isfinite(found), AUDIT, "outcome"),
                relabelled=np.isfinite(outcome) & (before != outcome),
            )
        )
        self._looks.append((now.to_pydatetime(), seen + len(rows), len(rows)))
        return self.batches[-1]

    def look(self, scope: Scope = "everything", labels: bool = True) -> Decision:
        """What the watch decides on the newest batch, as the monitor would."""
        problem, released, newest = self.problem, self.released, self.batches[-1]
        window = newest.drop(columns=list(BEHIND), errors="ignore")
        apart = told_apart(problem, released, window)
        if scope == "harm":
            checks = [*by_column(problem, released, window), joint_drift(problem, apart[0], len(window))]
        else:
            checks = without_labels(problem, released, window, apart)
        due = self.batches[: len(self.batches) - self.delay] if labels else []
        lesson = learn_from(1, self._ledger)
        self._feed(due, lesson)
        drifting = any(drifts(check.name) and check.verdict == "fail" for check in checks)
        if not drifting:
            self._quiet = len(self.batches)
        moved = self._quiet if drifting else 0
        every = _joined(due, newest)
        every = every[every["truth"].notna()]
        teaching = every[lesson.teaches(every["seq"].to_numpy(int), every["provenance"].to_numpy(object))]
        labelled, doubtful = (rows[rows["seq"] >= self._place(moved)] for rows in (teaching, every))
        audited = NOTHING
        if scope == "everything":
            checks += self._beside(window, _joined(due, newest), labelled, doubtful)
            found = _joined(due[-AUDITED_BATCHES:], newest)
            sound = ~inside(lesson.without, found["seq"].to_numpy(int))
            found = found[found["found"].notna().to_numpy() & sound]
            share = np.full(len(found), problem.watch.audit_share)
            audited = Audited(earlier=Audits(found["probability"].to_numpy(float), found["found"].to_numpy(float), share))
        judged = labelled.tail(WINDOWS * problem.watch.window)
        checks += on_labels(problem, released, window, apart, judged, self._stream, audited, doubtful)
        begun = self._begun(moved, next(check for check in checks if check.name == "concept_drift"))
        means = Means(
            labels_short=max(0, problem.watch.min_labels - int((teaching["seq"] >= begun).sum())),
            rows=len(window),
            audit_share=problem.watch.audit_share,
            audits_left=problem.watch.audit_budget,
        )
        first, last = (int(window["seq"].iloc[at]) if len(window) else 0 for at in (0, -1))
        decision = watch(checks, "the release", {"batch": len(self.batches), "from": first, "to": last}, means)
        self._ledger.append(decision.evidence)
        return decision

    def _feed(self, due: list[pd.DataFrame], lesson: Lesson) -> None:
        """Feed what labels tell first; all of it anew where other rows than before are not to be judged by."""
        if (lesson.without, lesson.audited) != (self._lesson.without, self._lesson.audited):
            self._stream, self._told, self._lesson = Stream(self.problem.watch.detector), [], lesson
        for batch in due[len(self._told) :]:
            told = batch.loc[batch["first"].notna(), ["seq", "label", "first", "outcome", "provenance"]]
            # An audit of a row that has a label already comes after it.
            came = told["provenance"].mask(told["outcome"].notna(), "outcome")
            sound = lesson.teaches(told["seq"].to_numpy(int), came.to_numpy(object))
            self._stream.feed(np.where(sound, (told["label"] != told["first"]).to_numpy(float), np.nan))
            self._told.append(told)

    def _begun(self, moved: int, concept: Check) -> int:
        """The log's place where the new population (of the batch `moved`, 0 where it has not) or concept begins, as the monitor tells it."""
        onset = self._place(moved)
        if concept.verdict != "fail":
            return onset
        places = np.concatenate([told["seq"].to_numpy(int) for told in self._told])[int(concept.evidence["at"]) - 1 :].tolist()
        return begins(onset, places, self.problem.watch.window, lambda first, last: last - first)

    def _place(self, moved: int) -> int:
        """The log's place where the batch `moved` begins; 1 for 0."""
        return self._looks[LOOKED - 1 + moved][1] + 1 if moved else 1

    def _beside(self, window: pd.DataFrame, due: pd.DataFrame, labelled: pd.DataFrame, doubtful: pd.DataFrame) -> list[Check]:
        aged, newest = (rows.rename(columns={"found": "gold"}) for rows in (due.tail(AGED_ROWS), doubtful))
        newest = newest.tail(max(LATELY) * self.problem.watch.window)
        came, usual = any(told["outcome"].notna().any() for told in self._told), usually_lacking(reversed(self._ledger))
        return [
            live_slices(self.problem, self.released.contract, held_of(self.released), labelled.tail(AGED_ROWS)),
            *on_the_way(self.problem, self.released, window, aged, self._looks, came, newest, usual),
            label_ids(self.problem, *self._came_lately()),
            score_skew(self.problem, window, self.answer(window)),
        ]

    def _came_lately(self) -> tuple[int, int]:
        """How many labels of the newest batch whose labels have come found their predictions, and how many did not."""
        newest = len(self._told) - 1
        return (int(self.batches[newest]["outcome"].notna().sum()), self._strays[newest]) if self._told else (0, 0)


def _joined(batches: list[pd.DataFrame], like: pd.DataFrame) -> pd.DataFrame:
    """The newest batches, with as many rows as are looked at or more; none, with the columns of `like`, where they have none."""
    chosen, rows = list[pd.DataFrame](), 0
    for batch in reversed(batches):
        # An empty batch has no types that its values could tell.
        if len(batch) and rows < AGED_ROWS:
            chosen.append(batch)
            rows += int(batch["truth"].notna().sum())
    return pd.concat(chosen[::-1] or [like.head(0)])
