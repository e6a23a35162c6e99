"""How does a person read what happened? One self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ratchet.check import Check
from ratchet.problem import Problem
from ratchet.report.card import number
from ratchet.report.template import fill

CAPTIONS = {
    "timeline": "What each decision cost, along the log. Bars are 95% intervals; labels came late and are shown where they belong.",
    "drift": "Each feature against the limit that keeps the year's false alarms in budget. Red moved.",
    "inheritance": "Each test row's error, followed from the parent to the child.",
    "families": "Every family was trained on the same rows; blue is the candidate.",
    "reliability": "On the diagonal, a predicted 20% happens in 20% of cases.",
    "roc": "On the test rows, which no model was trained, tuned or selected on.",
    "confusion": "What the candidate decides on the test rows.",
    "slices": "Protected groups; no model sees these columns.",
}


def render(
    problem: Problem,
    summary: dict[str, Any],
    *,
    watches: Sequence[dict[str, Any]],
    checks: Sequence[Check],
    drift: Sequence[Check],
    decisions: Sequence[dict[str, Any]],
    pictures: dict[str, str],
    links: dict[str, str],
    steps: dict[str, float],
) -> str:
    """The page as text; `pictures` are SVG by name, `links` point to the stack's pages while it is up."""
    return fill(
        "page.html",
        {"number": number, "clock": _clock},
        problem=problem,
        summary=summary,
        watches=watches,
        checks=checks,
        drift=drift,
        decisions=decisions,
        pictures=pictures,
        captions=CAPTIONS,
        links=links,
        steps=steps,
    )


def _clock(at: datetime) -> str:
    return at.strftime("%H:%M:%S")
