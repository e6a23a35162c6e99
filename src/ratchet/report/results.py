"""How does a measurement become a table that a command can regenerate?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from scipy import stats

Holds = Literal["yes", "no", "undecided", ""]
HEAD = ("| what | value | 95% interval | runs | bar | holds |", "|---|---|---|---|---|---|")
ANSWERS = {"yes": "hold", "undecided": "undecided", "no": "missed", "not measured": "not measured"}


@dataclass(frozen=True)
class Row:
    """One measured number with its 95% interval (`low`, `high`), the runs behind it and its bar, where there is one."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    unit: str
    limit: float | None = None
    holds: Holds = ""


def measured(name: str, values: Sequence[float], unit: str) -> Row:
    """The mean of n repeated measurements with Student's interval; no interval where n is 1.

    >>> measured("loop", [1.0, 2.0, 3.0], "s").value
    2.0
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Row(name, mean, None, None, len(values), unit)
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Row(name, mean, mean - half, mean + half, len(values), unit)


def share(name: str, hits: int, n: int) -> Row:
    """The share of n runs in which something happened, with Wilson's interval.

    >>> share("caught", 190, 200).value
    0.95
    """
    found = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return Row(name, hits / n, float(found.low), float(found.high), n, "of runs")


def count(name: str, value: float, n: int, unit: str) -> Row:
    """What was counted once, exactly, among n."""
    return Row(name, float(value), float(value), float(value), n, unit)


def against(row: Row, bars: dict[str, dict[str, float]]) -> Row:
    """The row with its bar from bars.yaml (`at_most` or `at_least`), decided by the interval alone."""
    bar = bars.get(row.name)
    if bar is None:
        return row
    ((side, limit),) = bar.items()
    holds: Holds = "undecided"
    if row.low is not None and row.high is not None:
        good = row.high <= limit if side == "at_most" else row.low >= limit
        bad = row.low > limit if side == "at_most" else row.high < limit
        holds = "yes" if good else "no" if bad else "undecided"
    return Row(**{**asdict(row), "limit": limit, "holds": holds})


def write(
    folder: Path, name: str, rows: Sequence[Row], *, command: str, commit: str, seeds: Sequence[int], machine: str, shown: int | None = None
) -> None:
    """Write NAME.json, NAME.md (the first `shown` rows) and README.md (every bar). KeyError where a bar of this result was not measured."""
    bars: dict[str, Any] = yaml.safe_load((folder / "bars.yaml").read_text(encoding="utf-8")).get(name, {})
    if missing := sorted(set(bars) - {row.name for row in rows}):
        raise KeyError(f"{name}: no row measures the bar {missing[0]!r}")
    judged = [against(row, bars) for row in rows]
    told = {"command": command, "commit": commit, "seeds": list(seeds), "machine": machine, "rows": [asdict(row) for row in judged]}
    (folder / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    lines = [f"# {name}", "", f"Made by `{command}` at commit `{commit}`, seeds {_spans(seeds)}, on {machine}.", ""]
    lines += [*HEAD, *(_line(row, bars) for row in judged[:shown])]
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(overview(folder), encoding="utf-8")


def overview(folder: Path) -> str:
    """Every bar of bars.yaml in one page, with what the newest NAME.json says of it; one that was never measured says so."""
    bars: dict[str, dict[str, Any]] = yaml.safe_load((folder / "bars.yaml").read_text(encoding="utf-8"))
    parts, holds = list[str](), list[str]()
    for name, of in sorted(bars.items()):
        told = json.loads(path.read_text(encoding="utf-8")) if (path := folder / f"{name}.json").exists() else {"rows": []}
        rows = {row["name"]: Row(**row) for row in told["rows"]}
        made = f"Made by `{told['command']}` at commit `{told['commit']}`: [all rows]({name}.md)." if rows else "Not measured yet."
        parts += ["", f"## {name}", "", made, "", *HEAD]
        for bar in of:
            row = against(rows[bar], of) if bar in rows else None
            holds.append(row.holds if row else "not measured")
            parts.append(_line(row, of) if row else f"| {bar} | | | | {_bar(bar, of)} | not measured |")
    counts = Counter(holds)
    said = ", ".join(f"{counts[answer]} {what}" for answer, what in ANSWERS.items() if counts[answer])
    lead = f"Of {len(holds)} bars ([bars.yaml](bars.yaml)): {said}. A bar holds where the whole interval does, and is missed where none of it does."
    return "\n".join(["# Every bar, and whether it holds", "", lead, *parts]) + "\n"


def _line(row: Row, bars: dict[str, dict[str, float]]) -> str:
    """A row of the table under HEAD."""
    interval = f"{row.low:.4g} to {row.high:.4g}" if row.low is not None else ""
    value = f"{row.value:.4g} {row.unit}".strip()
    return f"| {row.name} | {value} | {interval} | {row.n} | {_bar(row.name, bars)} | {row.holds} |"


def _bar(name: str, bars: dict[str, dict[str, float]]) -> str:
    """A bar as a person reads it.

    >>> _bar("a false alarm", {"a false alarm": {"at_most": 0.05}})
    'at most 0.05'
    """
    return " ".join(f"{side.replace('_', ' ')} {limit:g}" for side, limit in bars.get(name, {}).items())


def _spans(numbers: Sequence[int]) -> str:
    """Whole numbers, neighbours drawn together.

    >>> _spans([0, 1, 2, 7, 9, 10])
    '0 to 2, 7, 9 to 10'
    """
    ordered = sorted(set(numbers))
    starts = [n for n in ordered if n - 1 not in ordered]
    ends = [n for n in ordered if n + 1 not in ordered]
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))
