"""Which five questions would a careful buyer ask, and what does this run answer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.check import Check
from ratchet.generation import Generation
from ratchet.problem import Problem

UNKNOWN = "Not known from this run: "


@dataclass(frozen=True)
class Answer:
    """A question and what is known of it; `known` is false where the answer says that it is missing."""

    question: str
    text: str

    @property
    def known(self) -> bool:
        """Whether the run answers the question."""
        return not self.text.startswith(UNKNOWN)


def five(
    problem: Problem,
    generation: Generation,
    evaluation: dict[str, Any],
    checks: Sequence[Check],
    fixed: dict[str, Any] | None,
    life: dict[str, Any],
) -> list[Answer]:
    """The five answers. `life` has `days` (since the first generation), `retrained` (how often a watch asked for it)."""
    by_name = {check.name: check for check in checks}
    return [
        Answer("Was it trained here, or fine-tuned from somebody else's model?", _origin(generation, evaluation)),
        Answer("How much labelled data did it take, and what happens with half of it?", _labels(evaluation, by_name)),
        Answer("What was corrected since the last generation? One example.", _example(problem, generation, fixed, by_name)),
        Answer("How often will it need retraining, and what does that cost?", _upkeep(problem, by_name, life)),
        Answer("Which metric is better than a simpler model's, and by how much?", _better(problem, evaluation, by_name)),
    ]


def _origin(generation: Generation, evaluation: dict[str, Any]) -> str:
    rows = evaluation["rows"]
    kin = f" Its parent, version {generation.parent}, lent it no weights; it is what it is compared with." if generation.parent else ""
    return (
        f"Trained here, from the first weight on: {rows['train']:,} rows to learn from, {rows['tune']:,} to stop and calibrate on, "
        f"{rows['select']:,} to pick the family ({evaluation['picked']}) on. Nothing pretrained went into it.{kin}"
    )


def _labels(evaluation: dict[str, Any], by_name: dict[str, Check]) -> str:
    curve = by_name.get("learning_curve")
    total = f"{evaluation['rows']['labelled']:,} labelled rows, test rows included."
    if curve is None or "half" not in curve.evidence:
        why = curve.reason if curve is not None else "no learning curve was measured"
        return f"{UNKNOWN}{total} What half would do: {why}."
    half, full = curve.evidence["half"], curve.evidence["all"]
    return (
        f"{total} Trained on {half['labels']:,} instead of {full['labels']:,}, the accuracy on rows it had not seen is "
        f"{half['accuracy']:.1%} instead of {full['accuracy']:.1%}, and the log loss {half['log_loss']:.4f} instead of {full['log_loss']:.4f}. "
        f"Another thousand labels would take off {curve.value:.4f}."
    )


def _example(problem: Problem, generation: Generation, fixed: dict[str, Any] | None, by_name: dict[str, Check]) -> str:
    compared = by_name.get("non_inferior_to_champion")
    if generation.parent is not None and compared is not None and compared.n == 0:
        return f"{UNKNOWN}it was not compared with version {generation.parent}: {compared.reason}."
    if generation.parent is None:
        return f"{UNKNOWN}it is the first generation, so there was nothing to correct."
    if fixed is None:
        return f"{UNKNOWN}no test row that version {generation.parent} decided wrongly is decided rightly now."
    names = (problem.outcome.negative, problem.outcome.positive)
    truth, record = names[int(fixed["truth"])], ", ".join(f"{name} {_plain(value)}" for name, value in fixed["record"].items())
    return (
        f"Row {fixed['row']} turned out as {truth}. Version {generation.parent} gave {names[1]} {fixed['champion']:.0%} and decided wrongly; "
        f"this version gives {fixed['candidate']:.0%} and decides rightly. The record: {record}."
    )


def _plain(value: Any) -> str:
    return "missing" if value is None else f"{value:.8g}" if isinstance(value, float) else str(value)


def _upkeep(problem: Problem, by_name: dict[str, Check], life: dict[str, Any]) -> str:
    cost = by_name.get("cost")
    spent = ""
    if cost is not None:
        evidence = cost.evidence
        money = (
            f", {evidence['money']:,.2g} {evidence['unit']}"
            if evidence.get("money") is not None
            else "; no prices are stated in problem.yaml"
        )
        people = f", {evidence['minutes_of_people'] / 60:,.1f} hours of people's labelling" if evidence.get("minutes_of_people") else ""
        spent = f" This generation took {evidence['seconds']:.0f} s of computing and {evidence['new_labels']:,} new labels{money}{people}."
    if not life["retrained"]:
        return f"{UNKNOWN}the watch has asked for no retraining yet, {_span(life['days'])} after the first generation.{spent}"
    times = "once" if life["retrained"] == 1 else f"{life['retrained']} times"
    return (
        f"The watch has asked for retraining {times} in {_span(life['days'])}, so one in {_span(life['days'] / life['retrained'])}.{spent}"
    )


def _span(days: float) -> str:
    """A stretch of time as a person says it.

    >>> _span(3.2), _span(0.1), _span(0.001)
    ('3.2 days', '2.4 hours', '1.4 minutes')
    """
    if days >= 1:
        return f"{days:.1f} days"
    return f"{24 * days:.1f} hours" if 24 * days >= 1 else f"{1440 * days:.1f} minutes"


def _better(problem: Problem, evaluation: dict[str, Any], by_name: dict[str, Check]) -> str:
    told = []
    for name, other in (("beats_rule", "the hand-written rule"), ("not_worse_than_simple", "the logistic regression")):
        check = by_name.get(name)
        if check is None or check.value is None or check.low is None or check.high is None:
            continue
        word = "lower" if check.high < 0 else "higher" if check.low > 0 else "not provably different"
        told.append(f"against {other}, {problem.metric} per row is {check.value:+.4f} [{check.low:+.4f}, {check.high:+.4f}]: {word}")
    if not told:
        return f"{UNKNOWN}it was compared with no simpler model."
    picked = evaluation["families"][evaluation["picked"]]["test"]
    simple = evaluation["families"].get("logistic", {}).get("test")
    areas = (
        f" ROC AUC {picked['roc_auc']:.4f}, the simple model's {simple['roc_auc']:.4f}."
        if simple and "roc_auc" in simple and "roc_auc" in picked
        else ""
    )
    return f"Lower is better: {'; '.join(told)}.{areas}"
