"""What does a smaller network cost in decisions, and what does it save?"""

from __future__ import annotations

from collections.abc import Callable

from flows.compress import Variant, variants
from flows.standing import first_rows
from models.train import train
from ratchet.data.splits import split
from ratchet.problem import find_problem
from ratchet.report.results import Row, count, measured
from ratchet.settings import parameters, settings

PROBLEM, ROWS = "credit", 20_000


def judge(seed: int) -> list[Variant]:
    """The variants of a network that was trained on a world of that seed."""
    folder = find_problem(PROBLEM, settings().problems)
    params = parameters()["train"] | {"families": ["network"]}
    rows = first_rows(folder, ROWS, seed)
    sides = split(rows[folder.contract.entity])
    encoder, (network,) = train(rows, sides, folder.contract, folder.problem.threshold, params, seed)
    _, made = variants(folder, encoder, network.graph, rows, sides, params, seed)
    return made


def measure(runs: int, say: Callable[[int], None]) -> list[Row]:
    """The rows of compress.md, over so many worlds."""
    found: dict[str, list[Variant]] = {}
    for seed in range(runs):
        for variant in judge(seed):
            found.setdefault(variant.name, []).append(variant)
        say(seed + 1)
    rows = []
    for name, many in found.items():
        rows += [
            measured(f"{name}: size", [v.bytes / 1024 for v in many], "kB"),
            measured(f"{name}: a row in a batch", [v.microseconds for v in many], "µs"),
            measured(f"{name}: accuracy", [100 * v.accuracy for v in many], "%"),
            measured(f"{name}: decisions taken otherwise", [100 * v.flips for v in many], "%"),
            measured(f"{name}: negative flips", [100 * v.negative_flips for v in many], "%"),
            measured(f"{name}: negative flips in the worst slice", [100 * v.worst_negative_flips for v in many], "%"),
            count(f"{name}: golden rows decided otherwise", sum(v.golden or 0 for v in many), len(many), f"rows in {len(many)} networks"),
            count(f"{name}: refused", sum(bool(v.refused) for v in many), len(many), f"of {len(many)}"),
        ]
    return rows
