"""What does a smaller network decide otherwise? Variants of the newest generation's network, beside it on rows that none of them saw."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.setting import Setting
from flows.stages import judged, labelled
from models import calibration
from models.compress import quantised, student
from models.edge import single_file
from models.fitted import Views
from ratchet.data.encoding import Encoder
from ratchet.data.golden import golden
from ratchet.data.values import as_text
from ratchet.draft import drafted
from ratchet.errors import BatchError
from ratchet.problem import Folder
from ratchet.scoring import Scorer

# A quantised network that decides more rows otherwise is not exported.
MOST_FLIPS = 0.001
SMALL = {"width": 16, "blocks": 1, "dropout": 0.0, "epochs": 60, "patience": 8}
REPEATS = 5


@dataclass(frozen=True)
class Variant:
    """One network beside the one that it comes from, on n rows that neither learnt from.

    Shares of rows: decided rightly, decided otherwise, and decided wrongly where the other was right, the last also in the
    worst slice. `golden` counts the rows of the golden set that are decided otherwise, `golden_wrong` those that are decided
    wrongly, None where there is no such set. `refused` says why it is not exported, with the first row that differs; empty where it is.
    """

    name: str
    bytes: int
    microseconds: float
    accuracy: float
    flips: float
    negative_flips: float
    worst_slice: str
    worst_negative_flips: float
    n: int
    golden: int | None = None
    golden_wrong: int | None = None
    refused: str = ""


def compress(setting: Setting, out: Path) -> list[Variant]:
    """Make the variants, judge them, and write those that are fit for it, each with a single file of its own, to `out`.

    BatchError where there is no generation with a network yet.
    """
    contract, root = setting.contract, setting.root
    if not (root / "trained/network.onnx").is_file():
        raise BatchError(f"{setting.problem.name}: there is no network to compress yet. Run `ratchet run {setting.problem.name}`.")
    encoder = Encoder.from_dict(json.loads((root / "trained/encoder.json").read_text(encoding="utf-8")))
    rows, sides = labelled(root, contract)
    params = setting.workspace.parameters
    graphs, made = variants(
        setting.folder, encoder, (root / "trained/network.onnx").read_bytes(), rows, sides, params["train"], params["seed"]
    )
    files: dict[str, bytes | None] = {}
    for variant in made:
        stem, graph = variant.name.replace(" ", "-"), graphs[variant.name]
        alone = single_file(graph, encoder, contract, variant.name, setting.problem.threshold)
        files |= {f"{stem}.onnx": None if variant.refused else graph, f"{stem}.edge.onnx": None if variant.refused else alone}
    out.mkdir(parents=True, exist_ok=True)
    # What an earlier run left of a variant that is refused now must not be taken for fit.
    for name, content in files.items():
        if content is None:
            (out / name).unlink(missing_ok=True)
        else:
            _write(out / name, content)
    _write(out / "variants.json", json.dumps([asdict(variant) for variant in made], indent=1).encode())
    return made


def variants(
    folder: Folder, encoder: Encoder, graph: bytes, rows: pd.DataFrame, sides: np.ndarray, params: dict[str, Any], seed: int
) -> tuple[dict[str, bytes], list[Variant]]:
    """The graphs by name, the given network first, and how each does on the test rows; `params` are the training's."""
    contract = folder.contract
    parts = {side: rows[sides == side] for side in ("train", "tune")}
    views = {side: encoder.encode(part, ("codes", "numeric")) for side, part in parts.items()}
    whole = Scorer(graph, encoder)
    taught = {side: whole.probability(part) for side, part in parts.items()}
    told = params["network"] | SMALL | {"threads": params["threads"], "levels": [len(c.values) + 1 for c in encoder.categories]}
    learner = student(views["train"], taught["train"], views["tune"], taught["tune"], told, seed)
    truth = parts["tune"][contract.target].to_numpy(float)
    small = calibration.append(learner.export(), *calibration.platt(learner.logit(views["tune"]), truth)).SerializeToString(
        deterministic=True
    )
    shrunk, shrunk_small = (_quantised(folder, encoder, whole, views["train"], parts["tune"]) for whole in (graph, small))
    graphs = {"network": graph, "quantised": shrunk, "student": small, "quantised student": shrunk_small}
    test = judged(rows, sides, contract)
    base = {"network": whole, "quantised": whole, "student": whole, "quantised student": Scorer(small, encoder)}
    return graphs, [judge(folder, name, made, encoder, test, base[name]) for name, made in graphs.items()]


def _quantised(folder: Folder, encoder: Encoder, graph: bytes, train: Views, tune: pd.DataFrame) -> bytes:
    """As much of a graph quantised as leaves the decisions on the tuning rows and the golden set as they are, or nearly so.

    What is left in full precision grows until it is fit; the last try is given where none is.
    """
    whole, threshold, frozen = Scorer(graph, encoder), folder.problem.threshold, golden(folder)
    made, spared = quantised(graph, train), 0
    while True:
        tried = Scorer(made, encoder)
        flips = [
            ((tried.probability(rows) >= threshold) != (whole.probability(rows) >= threshold))
            for rows in (tune, frozen)
            if rows is not None
        ]
        if flips[0].mean() <= MOST_FLIPS / 2 and not any(turned.any() for turned in flips[1:]):
            return made
        spared += 1
        try:
            made = quantised(graph, train, spared)
        except ValueError:
            return made


def judge(folder: Folder, name: str, graph: bytes, encoder: Encoder, test: pd.DataFrame, base: Scorer) -> Variant:
    """A variant beside the graph that it was made of. A student is another model, and is judged, not refused, by its flips."""
    contract, threshold = folder.contract, folder.problem.threshold
    scorer = Scorer(graph, encoder)
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        mine = scorer.probability(test)
        seconds.append(time.perf_counter() - begun)
    truth = test[contract.target].to_numpy(float) == 1
    decided, before = mine >= threshold, base.probability(test) >= threshold
    flipped = decided != before
    negative = flipped & (before == truth)
    slices = _slices(folder, test)
    rates = {label: float(negative[mask].mean()) for label, mask in slices.items()}
    worst = max(rates, key=lambda label: rates[label], default="") if negative.any() else ""
    rate = rates.get(worst, float(negative.mean()))
    frozen = golden(folder)
    turned, amiss = None, None
    if frozen is not None:
        here, there = (one.probability(frozen) >= threshold for one in (scorer, base))
        turned, amiss = frozen[here != there], int((here != (frozen[contract.target].to_numpy(float) == 1)).sum())
    refused = ""
    if name.startswith("quantised") and flipped.mean() > MOST_FLIPS:
        first = test[contract.id].iloc[int(np.flatnonzero(flipped)[0])]
        refused = f"decides {flipped.sum()} of {len(test):,} rows otherwise, {MOST_FLIPS:.1%} is borne; the first is {first}"
    elif name.startswith("quantised") and turned is not None and len(turned):
        refused = f"decides {len(turned)} rows of the golden set otherwise, none is borne; the first is {turned[contract.id].iloc[0]}"
    return Variant(
        name=name,
        bytes=len(graph),
        microseconds=1e6 * float(np.median(seconds)) / len(test),
        accuracy=float((decided == truth).mean()),
        flips=float(flipped.mean()),
        negative_flips=float(negative.mean()),
        worst_slice=worst,
        worst_negative_flips=rate,
        n=len(test),
        golden=None if turned is None else len(turned),
        golden_wrong=amiss,
        refused=refused,
    )


def _slices(folder: Folder, test: pd.DataFrame) -> dict[str, np.ndarray]:
    """Every value of every categorical and protected column that enough rows have."""
    found: dict[str, np.ndarray] = {}
    for column in folder.contract.requested:
        if column.values is None:
            continue
        labels = test[column.name].map(as_text, na_action=None).to_numpy()
        for value in sorted(set(labels)):
            mask = labels == value
            if mask.sum() >= folder.problem.gate.min_group:
                found[f"{column.name} = {value}"] = mask
    return found


def _write(path: Path, content: bytes) -> None:
    with drafted(path) as draft:
        draft.write_bytes(content)


def as_rows(made: list[Variant]) -> list[tuple[str, ...]]:
    """The variants as a table's rows."""
    return [
        (v.name, f"{v.bytes / 1024:.0f}", f"{v.microseconds:.2f}", f"{v.accuracy:.2%}", f"{v.flips:.2%}", f"{v.negative_flips:.2%}",
         "" if v.golden is None else f"{v.golden}", "no" if v.refused else "yes")
        for v in made
    ]  # fmt: skip


def remarks(made: list[Variant]) -> list[str]:
    """What does not fit into a table: the worst slices, the golden rows that are decided wrongly, why one is not written."""
    told = []
    for v in made:
        parts = [f"worst in {v.worst_slice}, {v.worst_negative_flips:.2%} negative flips"] if v.worst_slice else []
        parts += [f"{v.golden_wrong} golden rows decided wrongly"] if v.golden_wrong else []
        parts += [f"not written: it {v.refused}"] if v.refused else []
        told += [f"{v.name}: {'; '.join(parts)}"] if parts else []
    return told
