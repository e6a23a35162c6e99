"""Which rows are certain, and must not turn when a model is made smaller? Frozen cohorts: new ones are added, old ones never change."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ratchet.contract import NAME, Contract
from ratchet.data.batch import conform, read_table
from ratchet.data.rows import defects
from ratchet.draft import drafted
from ratchet.errors import BatchError
from ratchet.problem import Folder

REGISTER = "cohorts.json"


@dataclass(frozen=True)
class Cohort:
    """Rows of one choosing, and why they were chosen. `sha256` is of the file as it was frozen."""

    name: str
    rows: int
    sha256: str
    why: str


def cohorts(folder: Folder) -> list[Cohort]:
    """The cohorts of a problem's golden set, in the order in which they were added; none where it has no golden set."""
    register = folder.path / "golden" / REGISTER
    if not register.is_file():
        return []
    try:
        return [Cohort(**item) for item in json.loads(register.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise BatchError(f"{register}: cannot be read ({error}). Bring it back from Git.") from error


def golden(folder: Folder) -> pd.DataFrame | None:
    """The rows of every cohort, with the label that is right; None where the problem has no golden set.

    BatchError where a cohort is gone, or no longer what was frozen.
    """
    contract, frames = folder.contract, []
    for cohort in cohorts(folder):
        path = _path(folder, cohort.name)
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != cohort.sha256:
            raise BatchError(f"{path}: is not as it was frozen. A cohort never changes: bring it back from Git, and add another.")
        frames.append(_labelled(conform(read_table(path), contract, str(path)), contract, str(path)))
    return pd.concat(frames, ignore_index=True) if frames else None


def freeze(folder: Folder, name: str, path: Path, why: str) -> Cohort:
    """Add the rows of a CSV or Parquet file as a cohort of that name.

    BatchError where there is such a cohort, a row breaks the contract or has no label, or stands in another cohort.
    """
    contract, known = folder.contract, cohorts(folder)
    if not re.fullmatch(NAME, name):
        raise BatchError(f"{name!r} is no name of a cohort: it must match {NAME}.")
    if any(cohort.name == name for cohort in known):
        raise BatchError(f"There is a cohort {name!r} already, and a cohort never changes. Give the new rows another name.")
    rows = _labelled(conform(read_table(path), contract, str(path)), contract, str(path))
    before = golden(folder)
    twice = rows[contract.id].isin(before[contract.id]).to_numpy() if before is not None else np.zeros(len(rows), dtype=bool)
    if twice.any():
        raise BatchError(f"{path}: row {rows[contract.id][twice].iloc[0]!r} is in the golden set already ({twice.sum()} such rows).")
    text = rows.to_csv(index=False, date_format="%Y-%m-%dT%H:%M:%S.%f").encode()
    cohort = Cohort(name, len(rows), hashlib.sha256(text).hexdigest(), why)
    target = _path(folder, name)
    target.parent.mkdir(exist_ok=True)
    _write(target, text)
    # The register last: a file that it does not name is of no cohort.
    _write(target.parent / REGISTER, (json.dumps([vars(c) for c in [*known, cohort]], indent=1) + "\n").encode())
    return cohort


def _labelled(rows: pd.DataFrame, contract: Contract, origin: str) -> pd.DataFrame:
    wrong = defects(rows, contract)
    wrong[rows[contract.target].isna().to_numpy()] = f"{contract.target} is missing"
    bad = [place for place, reason in enumerate(wrong) if reason is not None]
    if bad:
        raise BatchError(f"{origin}, row {bad[0] + 1}: {wrong[bad[0]]} ({len(bad)} such rows). A golden row is whole and has its label.")
    return rows


def _path(folder: Folder, name: str) -> Path:
    return folder.path / "golden" / f"{name}.csv"


def _write(path: Path, content: bytes) -> None:
    with drafted(path) as draft:
        draft.write_bytes(content)
