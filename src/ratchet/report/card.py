"""What must a person know of a version before trusting it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ratchet.check import Check
from ratchet.decision import Decision
from ratchet.generation import Generation
from ratchet.problem import Problem
from ratchet.report import figures
from ratchet.report.questions import Answer
from ratchet.report.template import fill

# What the card shows of the checks, in this order: a heading, what it is about, and the names of its checks.
PARTS = (
    ("Is it good enough?", ("separation", "floor", "beats_rule", "not_worse_than_simple")),
    ("Is it no step back?", ("non_inferior_to_champion", "negative_flips", "slices")),
    ("Do its probabilities mean what they say?", ("calibration", "calibration_slices", "conformal")),
    ("Are people treated alike?", ("fairness", "equal_merit", "equalised_odds", "group_calibration")),
    ("Does it bear bad rows and bad will?", ("robustness", "adversarial")),
    ("What does it go by, and how was it made?", ("leakage", "training", "error_consistency", "learning_curve", "cost")),
)
CAPTIONS = {
    "reliability": "On the diagonal, a predicted 20% happens in 20% of cases. Bars are 95% intervals.",
    "families": "Every family was trained on the same rows; blue is the one that was picked.",
    "learning": "Each point was trained on so many labels, and measured on rows that none of them saw.",
    "genealogy": "Inherited: the parent had it wrong too. Introduced: the parent had it right. Fixed: only the parent had it wrong.",
    "inheritance": "The same by batch and by protected group.",
    "compared_slices": "Found on one half of the test rows, measured on the other. Red is provably worse. Flipped: the champion had it right, this version has it wrong.",
    "slices": "Protected groups; no model sees these columns. Bars are 95% intervals.",
    "robustness": "Severity 3 touches a tenth of the cells, or moves numbers by a fifth of their spread.",
    "importance": "Every feature is shuffled in turn. The mark is what it mattered to the champion before.",
    "training": "The model kept is the one with the lowest tuning loss.",
}


# A tracker's database keeps 5,000 characters of a version's description.
LONGEST = 4800


def checks_table(checks: Sequence[Check]) -> str:
    """The checks as a Markdown table."""
    lines = ["| check | verdict | value | 95% interval | limit | rows | why |", "|---|---|---|---|---|---|---|"]
    for check in checks:
        interval = f"{number(check.low)} to {number(check.high)}" if check.low is not None else ""
        name = check.heading
        reason = check.reason.replace("|", "/")
        lines.append(
            f"| {name} | **{check.verdict}** | {number(check.value)} | {interval} | {number(check.limit)} | {check.n or ''} | {reason} |"
        )
    return "\n".join(lines)


def number(value: float | None) -> str:
    """A number as a person reads it; empty where there is none."""
    if value is None:
        return ""
    return f"{value:.1e}" if value != 0 and abs(value) < 1e-3 else f"{value:.4g}"


def summary(
    problem: Problem, version: str, generation: Generation, decision: Decision, checks: Sequence[Check], evaluation: dict[str, Any]
) -> str:
    """What stands at the top of a version's page, in Markdown, at most `LONGEST` characters: what it is, whence, what was decided."""
    rows = evaluation["rows"]
    by_verdict = {verdict: [c.name for c in checks if c.verdict == verdict] for verdict in ("fail", "undecided", "pass", "not_applicable")}
    told = "\n".join(f"- {verdict.replace('_', ' ')}: {', '.join(names)}" for verdict, names in by_verdict.items() if names)
    # Only what holds a promotion is told in its own words here; card.html has them all.
    reasons = [f"- {c.name}: {c.reason}" for c in checks if c.blocking and c.verdict in ("fail", "undecided")]
    head = f"# {problem.title}: version {version}\n\n**{decision.action}** (decision `{decision.id}`)\n"
    rest = f"""
A `{evaluation["picked"]}` model that answers: {problem.question} Label 1 ({problem.outcome.positive}) is decided from probability {problem.threshold:g} on, because a missed {problem.outcome.positive} costs {problem.costs.false_negative:g} and a false alarm {problem.costs.false_positive:g} ({problem.costs.unit}). It was picked by {evaluation["select_by"]} on {rows["select"]} rows that no family was trained or tuned on.

| | |
|---|---|
| parent | {f"version {generation.parent}" if generation.parent else "none"} |
| snapshot | `{generation.snapshot}` |
| labels | {", ".join(f"{count} {provenance}" for provenance, count in generation.labels)} |
| learnt from | {evaluation["learnt_from"]} |
| rows | {rows["train"]} train, {rows["tune"]} tune, {rows["select"]} select, {rows["test"]} test |
| parameters | `{generation.parameters}` |
| code | commit `{generation.commit}`, stages `{generation.code}` |
| contract and costs | `{generation.declaration}` |
| started by | {generation.trigger} |

The whole card is card.html among the artifacts of the run. Its checks:

{told}
"""
    room = LONGEST - len(head) - len(rest) - 2
    kept: list[str] = []
    for reason in reasons:
        if sum(map(len, kept)) + len(kept) + len(reason) > room:
            break
        kept.append(reason)
    return f"{head}\n{chr(10).join(kept)}\n{rest}"[:LONGEST]


def card(
    problem: Problem,
    version: str,
    generation: Generation,
    decision: Decision,
    checks: Sequence[Check],
    evaluation: dict[str, Any],
    errors: dict[str, int] | None,
) -> str:
    """The model card of a version, in Markdown."""
    inherited = "It is the first generation: there is no parent to inherit errors from."
    if errors:
        inherited = (
            f"Of the parent's errors on the test rows it inherited {errors['inherited']} and fixed {errors['fixed']}; "
            f"it introduced {errors['introduced']} new ones."
        )
    elif generation.parent:
        inherited = f"It could not be compared with its parent, version {generation.parent}, row by row; the checks say why."
    return f"""{summary(problem, version, generation, decision, checks, evaluation)}
## What was checked
{checks_table(checks)}

## Errors
{inherited}
"""


def card_page(
    problem: Problem,
    version: str,
    generation: Generation,
    decision: Decision,
    checks: Sequence[Check],
    evaluation: dict[str, Any],
    answers: Sequence[Answer],
    pictures: dict[str, str],
) -> str:
    """The model card as one self-contained HTML page, for a person who must decide; `pictures` are SVG by name."""
    named = {name for _, names in PARTS for name in names}
    parts = [(heading, [c for c in checks if c.name.split(":")[0] in names]) for heading, names in PARTS]
    rest = [c for c in checks if c.name.split(":")[0] not in named]
    shown = [(heading, some) for heading, some in (*parts, ("What else was asked?", rest)) if some]
    return fill(
        "card.html",
        {"number": number},
        problem=problem,
        version=version,
        generation=generation,
        decision=decision,
        parts=shown,
        evaluation=evaluation,
        answers=answers,
        pictures=pictures,
        captions=CAPTIONS,
        held=[c for c in checks if c.blocking and c.verdict in ("fail", "undecided")],
        counts={verdict: sum(c.verdict == verdict for c in checks) for verdict in ("pass", "fail", "undecided", "not_applicable")},
    )


def card_pictures(
    problem: Problem,
    checks: Sequence[Check],
    evaluation: dict[str, Any],
    examination: dict[str, Any],
    comparison: dict[str, Any],
    genealogy: Sequence[dict[str, Any]],
    explained: pd.DataFrame,
    already: dict[str, Any],
) -> dict[str, str]:
    """The card's pictures as SVG by name.

    `already` are figures that were drawn for the tracker; `comparison` has `importance`; `explained` has a row of SHAP
    values for each of a few answers, its index saying which.
    """
    by_name = {check.name: check for check in checks}
    made: dict[str, Any] = {
        name: already[name] for name in ("reliability", "families", "slices", "inheritance", "training") if name in already
    }
    curve, sliced = by_name.get("learning_curve"), by_name.get("slices")
    if curve is not None and "points" in curve.evidence:
        made["learning"] = figures.learning(curve.evidence["points"], curve.evidence["law"])
    if any(check.name.startswith("robustness") and check.evidence for check in checks):
        made["robustness"] = figures.robustness(checks)
    if examination["importance"]:
        made["importance"] = figures.importance(examination["importance"], comparison["importance"])
    if sliced is not None and sliced.evidence.get("slices"):
        made["compared_slices"] = figures.compared_slices(sliced.evidence["slices"], problem.metric, problem.gate.slice_margin)
    if genealogy:
        made["genealogy"] = figures.genealogy(genealogy)
    for place, (title, row) in enumerate(explained.iterrows()):
        made[f"answer {place + 1}"] = figures.answer({str(name): float(value) for name, value in row.items()}, str(title))
    return {name: figures.svg(figure) for name, figure in made.items()}
