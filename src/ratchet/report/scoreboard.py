"""Which monitor saw which planted fault, how soon, and how often did it ring for nothing? One self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(worlds: Sequence[dict[str, Any]], *, command: str, commit: str, batch: int, delay: int) -> str:
    """The page as text.

    `worlds` is what flows/scoreboard.py's `board` tells: by world its faults, each with `cells` by monitor (how many runs, in how many it
    was seen, the median delay in rows), and its clean years. `batch` is the rows of a batch, `delay` after how many batches labels come.
    """
    environment = Environment(
        loader=PackageLoader("ratchet.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shade": _shade, "rows": _rows}
    return environment.get_template("scoreboard.html").render(
        worlds=worlds, command=command, commit=commit, batch=batch, delay=delay, monitors=list(worlds[0]["clean"]) if worlds else []
    )


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
