"""What does a version answer for a whole file? Part by part, so that a run that was cut short goes on where it was."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ratchet.contract import Contract
from ratchet.data.arrow import missing_column, typed
from ratchet.data.rows import defects
from ratchet.decision import digest
from ratchet.draft import drafted
from ratchet.errors import BatchError, ReleaseError
from ratchet.problem import Folder
from ratchet.release import Release, read
from ratchet.settings import Settings
from ratchet.store import Store

PART_ROWS = 100_000
FORMATS = (".parquet", ".csv")
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Scored:
    """Rows of a file: how many were answered, how many were refused, and how many of them an earlier run had done."""

    rows: int
    refused: int
    resumed: int


def score_file(release: Release, source: Path, target: Path, progress: Progress = lambda *_: None, part_rows: int = PART_ROWS) -> Scored:
    """Score a Parquet or CSV file into another one, row for row, in the same order.

    The result holds the row's id, where the file has one, then probability, label, low, high, model_version, and why a row
    was refused: a row that breaks the contract has no probability, and none is dropped. Finished parts wait beside the
    target; the same call takes them up. BatchError where the file is missing, of another kind, or lacks a column.
    """
    for path in (source, target):
        if path.suffix not in FORMATS:
            raise BatchError(f"{path}: the name must end in .parquet or .csv.")
    if not source.is_file():
        raise BatchError(f"{source}: there is no such file.")
    if target.resolve() == source.resolve():
        raise BatchError(f"{target}: the answers must not replace the rows. Name another file with --out.")
    parts = target.with_name(f".{target.name}.parts")
    made_of = hashlib.sha256((release.path / "manifest.json").read_bytes()).hexdigest()
    _prepare(parts, {"release": made_of, "rows": part_rows} | _identity(source))
    done = rows = resumed = refused = 0
    total = _count(source)
    for number, frame in enumerate(_read(source, release.contract, part_rows)):
        path = parts / f"{number:06d}.parquet"
        if path.is_file():
            told = pyarrow.parquet.read_table(path, columns=["refused"])["refused"]
            bad = len(told) - told.null_count
            resumed += len(frame)
        else:
            answers = _answers(release, frame, rows)
            bad = int(answers["refused"].notna().sum())
            with drafted(path) as draft:
                answers.to_parquet(draft, index=False)
        done, rows, refused = number + 1, rows + len(frame), refused + bad
        progress(rows, total)
    if not rows:
        raise BatchError(f"{source}: there are no rows.")
    _join(parts, done, target)
    shutil.rmtree(parts)
    return Scored(rows, refused, resumed)


def released(folder: Folder, settings: Settings, version: str | None) -> Release:
    """A release by its version, or the champion's. ReleaseError where there is none."""
    name = folder.problem.name
    if version is None:
        store = Store(settings.store_url, name)
        route = store.route()
        store.close()
        if route is None:
            raise ReleaseError(f"No model of {name!r} has been released yet. Run `ratchet run {name}`.")
        version = route.champion
    return read(settings.releases / name / version)


def _prepare(parts: Path, belongs: dict[str, Any]) -> None:
    """A folder for parts; those of another file, version or size of parts are thrown away."""
    told = digest(belongs)
    note = parts / "belongs.txt"
    if not note.is_file() or note.read_text(encoding="utf-8", errors="replace") != told:
        shutil.rmtree(parts, ignore_errors=True)
        try:
            parts.mkdir(parents=True)
            note.write_text(told, encoding="utf-8")
        except OSError as error:
            raise BatchError(f"{parts.parent}: cannot be written: {error.strerror}.") from error


def _count(source: Path) -> int | None:
    """How many rows a Parquet file says that it has; a CSV does not say."""
    try:
        return int(pyarrow.parquet.read_metadata(source).num_rows) if source.suffix == ".parquet" else None
    except pa.ArrowException as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Path, error: pa.ArrowException, names: Sequence[str] = ()) -> BatchError:
    said = str(error).splitlines()[0].rstrip(".")
    if found := re.search(r"column #(\d+): .*invalid value '(.*)'", said):
        said = f"column {names[int(found[1])]!r} holds {found[2][:40]!r}, which is not a number"
    return BatchError(f"{source}: cannot be read as a table: {said}.")


def _identity(source: Path) -> dict[str, Any]:
    found = source.stat()
    return {"source": str(source.resolve()), "bytes": found.st_size, "changed": found.st_mtime_ns}


def _read(source: Path, contract: Contract, part_rows: int) -> Iterator[pd.DataFrame]:
    """The file in parts, with the columns that are asked for, in the types that their scales call for."""
    wanted = [column.name for column in contract.requested]
    there: list[str] = []
    try:
        if source.suffix == ".parquet":
            opened = pyarrow.parquet.ParquetFile(source)
            there = opened.schema_arrow.names
        else:
            with pyarrow.csv.open_csv(source) as opened_csv:
                there = opened_csv.schema.names
        if (gone := missing_column(there, contract)) is not None:
            raise BatchError(f"{source}: column {gone!r} is missing. The contract asks for: {', '.join(wanted)}.")
        names = [name for name in (contract.id, *wanted) if name in there]
        batches = opened.iter_batches(part_rows, columns=names) if source.suffix == ".parquet" else _csv(source, contract, names, part_rows)
        for batch in batches:
            yield typed(batch, contract, str(source))
    except pa.ArrowException as error:
        raise _unreadable(source, error, there) from error


def _csv(source: Path, contract: Contract, names: list[str], part_rows: int) -> Iterator[pa.RecordBatch]:
    """A CSV in parts of so many rows. Its text is taken as the contract says, not as it looks."""
    kinds = {name: pa.string() if name == contract.id or contract.column(name).is_words else pa.float64() for name in names}
    options = pyarrow.csv.ConvertOptions(column_types=kinds, include_columns=names, null_values=[""], strings_can_be_null=True)
    with pyarrow.csv.open_csv(source, convert_options=options, read_options=pyarrow.csv.ReadOptions(block_size=8 << 20)) as reader:
        kept = pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
        for batch in reader:
            kept = pa.concat_tables([kept, pa.Table.from_batches([batch])])
            while kept.num_rows >= part_rows:
                yield kept.slice(0, part_rows).combine_chunks().to_batches()[0]
                kept = kept.slice(part_rows)
        yield from kept.combine_chunks().to_batches()


def _answers(release: Release, frame: pd.DataFrame, start: int) -> pd.DataFrame:
    """The answers of a part. A row that is refused has none."""
    contract = release.contract
    refused = defects(frame, contract)
    good = np.array([reason is None for reason in refused])
    scored = frame[good] if not good.all() else frame
    probability = np.full(len(frame), np.nan)
    bounds = np.full((len(frame), 2), np.nan)
    if len(scored):
        probability[good] = release.scorer.probability(scored)
        if release.interval is not None:
            bounds[good] = release.interval.of(probability[good])
    label = pd.array((probability >= release.threshold).astype(int), dtype="Int64")
    label[~good] = pd.NA
    named = {contract.id: frame[contract.id]} if contract.id in frame else {"row": np.arange(start + 1, start + len(frame) + 1)}
    told = {"probability": probability, "label": label, "low": bounds[:, 0], "high": bounds[:, 1]}
    return pd.DataFrame(named | told | {"model_version": release.version, "refused": pd.Series(refused, dtype="string")})


def _join(parts: Path, count: int, target: Path) -> None:
    """The parts as one file, whole or not at all."""
    tables = (pyarrow.parquet.read_table(parts / f"{number:06d}.parquet") for number in range(count))
    first = next(tables)
    kind = pyarrow.parquet.ParquetWriter if target.suffix == ".parquet" else pyarrow.csv.CSVWriter
    with drafted(target) as draft, kind(draft, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table.cast(first.schema))
