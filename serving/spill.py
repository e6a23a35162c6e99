"""Where do answers go while the store is away? Into files that are forced to disk, and back when it returns."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from ratchet.prediction import Prediction
from ratchet.store import Store

logger = logging.getLogger("ratchet.serving")
CHUNK = 500
# A file that has grown this large is let go of, so that replaying it takes a moment and not minutes.
FILE_BYTES = 16 * 1024 * 1024


class Spill:
    """A folder of files, each written by one process that holds its lock; whoever gets the lock may replay it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._encode, self._decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Prediction).decode
        self._mutex, self._reading = threading.Lock(), threading.Lock()
        self._file: BinaryIO | None = None
        self._read: dict[Path, _Read] = {}

    # ---- writing

    def append(self, rows: Sequence[Prediction]) -> None:
        """Return once the rows are on disk. OSError where the disk does not take them; nothing of them is kept then."""
        lines = memoryview(b"".join(self._encode(row) + b"\n" for row in rows))
        with self._mutex:
            file = self._file or self._begin()
            good = file.tell()
            try:
                # A disk that is nearly full takes a part, and says so only by the count.
                while lines:
                    lines = lines[file.write(lines) :]
                os.fsync(file.fileno())
            except OSError:
                # Half a line must not spoil the next one.
                file.seek(good)
                file.truncate()
                raise
            if file.tell() > FILE_BYTES:
                self._let_go()

    def _begin(self) -> BinaryIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        draft = self.folder / f".{name}.draft"
        file = draft.open("xb", buffering=0)
        # Locked before it gets the name under which others look for files to replay.
        fcntl.flock(file, fcntl.LOCK_EX)
        os.rename(draft, self.folder / f"{name}.jsonl")
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._file = file
        return file

    def rest(self) -> None:
        """Let go of the file under way, so that it can be replayed."""
        with self._mutex:
            self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # ---- reading what waits

    def files(self) -> list[Path]:
        """The files that wait, oldest first."""
        return sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []

    def waiting(self) -> int:
        """How many rows wait, of every process."""
        with self._reading:
            return sum(known.rows for known in self._look())

    def answered(self, ids: Sequence[str]) -> list[Prediction]:
        """The rows of keyed requests that wait under those ids, of every process, in order."""
        with self._reading:
            every: dict[str, Prediction] = {}
            for known in self._look():
                every |= {identity: known.keyed[identity] for identity in ids if identity in known.keyed}
        return [every[identity] for identity in ids if identity in every]

    def _look(self) -> Iterable[_Read]:
        """What is known of every file, brought up to date by what was added since the last look."""
        there = self.files()
        self._read = {path: self._read.get(path) or _Read() for path in there}
        for path, known in self._read.items():
            try:
                with path.open("rb") as file:
                    file.seek(known.upto)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        known.upto += len(line)
                        known.rows += 1
                        if b'"keyed":true' in line:
                            told = self._decode(line)
                            known.keyed[told.id] = told
            except (FileNotFoundError, msgspec.DecodeError):
                continue
        return self._read.values()

    # ---- replaying

    def replay(self, store: Store) -> tuple[int, int]:
        """Hand every file that no living process writes to the store, and remove it; how many rows were new there, and rejected.

        A row that the store holds already is passed over, so a replay that was cut off is simply done again. What
        cannot be read, what the store refuses, and what it holds with other content, goes to a file `*.rejected`
        beside it, and is logged: nothing is dropped in silence, and nothing keeps the rest waiting.
        """
        new = refused = 0
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
                if path.exists():
                    taken, rejected = self._replay_one(store, file, path)
                    new, refused = new + taken, refused + rejected
                    path.unlink()
        return new, refused

    def _replay_one(self, store: Store, file: BinaryIO, path: Path) -> tuple[int, int]:
        new, rows, rejected = 0, list[Prediction](), list[bytes]()
        for line in file:
            if not line.endswith(b"\n"):
                logger.warning("%s ends in half a line, which was never acknowledged; it is left out", path)
                break
            try:
                rows.append(self._decode(line))
            except msgspec.DecodeError:
                rejected.append(line)
            if len(rows) == CHUNK:
                new += self._hand_in(store, rows, rejected)
                rows = []
        new += self._hand_in(store, rows, rejected)
        if rejected:
            place = path.with_suffix(".rejected")
            with place.open("ab") as kept:
                kept.writelines(rejected)
                kept.flush()
                os.fsync(kept.fileno())
            logger.error("rows of the spill were not taken; they are kept aside", extra={"rows": len(rejected), "file": str(place)})
        return new, len(rejected)

    def _hand_in(self, store: Store, rows: list[Prediction], rejected: list[bytes]) -> int:
        if not rows:
            return 0
        try:
            taken = store.log(rows, again=True)
        except (DataError, IntegrityError, ProgrammingError):
            if len(rows) == 1:
                rejected.append(self._encode(rows[0]) + b"\n")
                return 0
            return sum(self._hand_in(store, [row], rejected) for row in rows)
        if taken < len(rows):
            there = {known.id: known.features for known in store.answered([row.id for row in rows])}
            rejected += [self._encode(row) + b"\n" for row in rows if there.get(row.id) != row.features]
        return taken


class _Read:
    """How far a file has been read, how many rows it has, and the answers to keyed requests in it."""

    def __init__(self) -> None:
        self.upto, self.rows = 0, 0
        self.keyed: dict[str, Prediction] = {}
