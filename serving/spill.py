"""Where do answers go while the store is away? Into a file that is forced to disk, and back when it returns."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ratchet.store import Store

logger = logging.getLogger("ratchet.serving")
CHUNK = 500


class Line(msgspec.Struct):
    """A prediction as a line of a spill file."""

    id: str
    problem: str
    at: datetime
    version: str
    variant: str
    propensity: float
    probability: float
    label: int
    features: str


class Spill:
    """A folder of files, each written by one process that holds its lock; whoever gets the lock may replay it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._encode, self._decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Line).decode
        self._mutex = threading.Lock()
        self._file: BinaryIO | None = None

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Return once the rows are on disk. OSError where the disk does not take them; nothing of them is kept then."""
        lines = b"".join(self._encode(row) + b"\n" for row in rows)
        with self._mutex:
            file = self._file or self._begin()
            good = file.tell()
            try:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                # Half a line must not spoil the next one.
                file.seek(good)
                file.truncate()
                raise

    def _begin(self) -> BinaryIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.jsonl"
        file = path.open("xb", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX)
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._file = file
        return file

    def rest(self) -> None:
        """Let go of the file under way, so that it can be replayed."""
        with self._mutex:
            if self._file is not None:
                self._file.close()
                self._file = None

    def files(self) -> list[Path]:
        """The files that wait, oldest first."""
        return sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []

    def waiting(self) -> int:
        """How many rows wait, of every process."""
        total = 0
        for path in self.files():
            try:
                total += path.read_bytes().count(b"\n")
            except FileNotFoundError:
                continue
        return total

    def replay(self, store: Store) -> int:
        """Hand every file that no living process writes to the store, and remove it; how many rows were new there.

        A row that the store holds already is passed over, so a replay that was cut off is simply done again.
        """
        new = 0
        for path in self.files():
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue
            with file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if not path.exists():
                    # Another process replayed it between the look and the lock.
                    continue
                for rows in self._chunks(file, path):
                    new += store.log(rows, again=True)
                path.unlink()
        return new

    def _chunks(self, file: BinaryIO, path: Path) -> Iterator[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        for line in file:
            if not line.endswith(b"\n"):
                # Cut off as it was written, so never acknowledged.
                logger.warning("%s ends in half a line, which was never acknowledged; it is left out", path)
                break
            rows.append(msgspec.structs.asdict(self._decode(line)))
            if len(rows) == CHUNK:
                yield rows
                rows = []
        if rows:
            yield rows
