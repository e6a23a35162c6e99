"""Which shifts does the watch see, and of which does it raise harm, by the rows of a batch? Beside Evidently's default preset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from flows.experiment_watch import CONTRACT, LARGE, UNIT, Run, drifted, expected_wrong, others, raises, told_by_peers, usual
from flows.peers import evidently
from ratchet.report import figures
from ratchet.report.results import Row, measured, share
from ratchet.simulation.population import Moved

SIZES = (200, 500, 1000, 2000, 5000, 20_000, 100_000, LARGE)
POWER = {
    "a harmful shift of 0.07 standard deviations": Moved(active=0.07),
    "a benign shift of 0.07 standard deviations": Moved(idle=0.07),
    "no shift": Moved(),
}
# Of batches of a million rows there are fewer.
LARGEST_RUNS = 5
# Evidently takes two seconds for a batch of 2,000 rows, and more as its rows grow: of large batches it is asked in some runs, of the largest in none.
PEER_EVERY = 5
PEER_ROWS, PEER_MOST = 20_000, 100_000


@dataclass(frozen=True)
class Case:
    """One batch of so many rows of a population that has moved, or has not."""

    what: str
    rows: int
    seed: int


def cases(runs: int) -> list[Case]:
    """Of each shift and size `runs`, of the largest five at most."""
    made = [Case(what, rows, seed) for what in POWER for rows in SIZES for seed in range(runs if rows < LARGE else min(runs, LARGEST_RUNS))]
    # The long ones first, so that no process waits for the last of them; those of one release side by side, so that it is made once.
    return sorted(made, key=lambda case: (-case.rows, case.seed))


def judge(case: Case) -> dict[str, Any]:
    """Whether the shift is seen, and whether harm is raised, before any label, as plain data."""
    watched = Run(case.seed)
    window = watched.arrive(case.rows, POWER[case.what])
    decision = watched.decide(labels=False)
    asked = case.rows <= PEER_ROWS or (case.rows <= PEER_MOST and case.seed % PEER_EVERY == 0)
    peers = [evidently(CONTRACT, watched.released.reference, window)] if asked else []
    harm = expected_wrong(window) - usual(case.seed)
    return {**asdict(case), "harm": harm, "seen": drifted(decision), "raised": raises(decision), **told_by_peers(peers)}


def measure(judged: Sequence[dict[str, Any]]) -> list[Row]:
    """By shift and size, what is seen and raised, and by whom."""
    rows: list[Row] = []
    for what in POWER:
        for size in SIZES:
            mine = [told for told in judged if (told["what"], told["rows"]) == (what, size)]
            rows.append(share(f"{what}, {size:,} rows: seen", sum(told["seen"] for told in mine), len(mine)))
            rows.append(share(f"{what}, {size:,} rows: harm raised", sum(told["raised"] for told in mine), len(mine)))
            rows += others(f"{what}, {size:,} rows", mine)
        harms = [told["harm"] for told in judged if told["what"] == what and told["rows"] >= PEER_ROWS]
        rows.append(measured(f"{what}: what it really does", harms, UNIT))
    return rows


def curves(rows: Sequence[Row]) -> Figure:
    """Power against batch size: what is seen, and what is raised as harm."""
    found = [(re.fullmatch(r"(a .* deviations), ([\d,]+) rows: (seen|harm raised)", row.name), row) for row in rows]
    table = pd.DataFrame(
        [
            {"what": f"{m[1]}: {m[3]}", "rows": int(m[2].replace(",", "")), "value": row.value, "low": row.low, "high": row.high}
            for m, row in found
            if m
        ]
    )
    by_rows = {what: part.sort_values("rows") for what, part in table.groupby("what")}
    return figures.shares([("rows a batch", "rows", by_rows)], of="batches")
