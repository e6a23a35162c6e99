"""Which monitor saw which planted fault, how soon, and how often did it ring for nothing? One self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratchet.report.results import Row
from ratchet.report.template import fill


def render(
    worlds: Sequence[dict[str, Any]], ours: Sequence[str], sums: Sequence[Row], *, command: str, commit: str, batch: int, delay: int
) -> str:
    """The page as text.

    `worlds` is what flows/scoreboard.py's `board` tells: by world its faults, each with `cells` by monitor (how many runs, in how many it
    was seen, the median delay in rows), and its clean years, those of autocorrelated rows apart. `ours` are the monitors of the watch;
    all others stand apart. `sums` are the results in sum: those that begin with a world's name and tell of no single monitor or fault
    stand above its table. `batch` is the rows of a batch, `delay` after how many batches labels come.
    """
    others = [name for name in worlds[0]["clean"] if name not in ours] if worlds else []
    said = {at["name"]: [_said(at["name"], row) for row in sums if _whole(at["name"], row)] for at in worlds}
    facts = {"worlds": worlds, "said": said, "command": command, "commit": commit, "batch": batch, "delay": delay}
    return fill("scoreboard.html", {"shade": _shade, "rows": _rows}, **facts, ours=ours, others=others)


def _whole(world: str, row: Row) -> bool:
    """Whether a result tells of a whole world, and of no single monitor or fault."""
    return row.name.startswith(f"{world}: ") and ", " not in row.name


def _said(world: str, row: Row) -> str:
    """A share as a person reads it.

    >>> _said("population", Row("population: faults seen", 0.75, 0.3, 0.95, 4, "of runs"))
    'faults seen: 3 of 4 runs [30%, 95%]'
    """
    interval = f" [{row.low:.0%}, {row.high:.0%}]" if row.low is not None and row.high is not None else ""
    return f"{row.name.removeprefix(f'{world}: ')}: {round((row.value or 0) * row.n)} of {row.n} runs{interval}"


def _shade(cell: dict[str, Any]) -> str:
    """How dark a cell is, by the share of runs in which the fault was seen."""
    return f"{cell['seen'] / cell['n']:.2f}" if cell["n"] else "0"


def _rows(count: float | None) -> str:
    """A number of rows in few letters.

    >>> _rows(2000), _rows(500.0), _rows(None)
    ('2k', '500', '')
    """
    if count is None:
        return ""
    return f"{count / 1000:g}k" if count >= 1000 else f"{count:g}"
