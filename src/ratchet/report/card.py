"""What must a person know of a version before trusting it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratchet.check import Check
from ratchet.decision import Decision
from ratchet.generation import Generation
from ratchet.problem import Problem


def checks_table(checks: Sequence[Check]) -> str:
    """The checks as a Markdown table."""
    lines = ["| check | verdict | value | 95% interval | limit | rows | why |", "|---|---|---|---|---|---|---|"]
    for check in checks:
        interval = f"{number(check.low)} to {number(check.high)}" if check.low is not None else ""
        name = check.name if check.blocking else f"{check.name} (advisory)"
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
    picked, rows = evaluation["picked"], evaluation["rows"]
    inherited = (
        f"Of the parent's errors on the test rows it inherited {errors['inherited']} and fixed {errors['fixed']}; "
        f"it introduced {errors['introduced']} new ones."
        if errors
        else "It is the first generation: there is no parent to inherit errors from."
    )
    reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
    what = (
        f"A `{picked}` model that answers: {problem.question} Label 1 ({problem.outcome.positive}) is decided from probability "
        f"{problem.threshold:g} on, because a missed {problem.outcome.positive} costs {problem.costs.false_negative:g} and a "
        f"false alarm {problem.costs.false_positive:g} ({problem.costs.unit}). It was picked by {evaluation['select_by']} on "
        f"{rows['select']} rows that no family was trained or tuned on."
    )
    return f"""# {problem.title}: version {version}

**{decision.action}** (decision `{decision.id}`)

{reasons}

## What it is
{what}

## Where it comes from
| | |
|---|---|
| parent | {f"version {generation.parent}" if generation.parent else "none"} |
| snapshot | `{generation.snapshot}` |
| labels | {", ".join(f"{count} {provenance}" for provenance, count in generation.labels)} |
| rows | {rows["train"]} train, {rows["tune"]} tune, {rows["select"]} select, {rows["test"]} test |
| parameters | `{generation.parameters}` |
| code | commit `{generation.commit}`, stages `{generation.code}` |
| contract and costs | `{generation.declaration}` |
| started by | {generation.trigger} |

## What was checked
{checks_table(checks)}

## Errors
{inherited}
"""
