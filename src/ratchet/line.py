"""Who writes SQLite's log next? Whoever has waited longest, of all threads and processes."""

from __future__ import annotations

import fcntl
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

import sqlalchemy as sa


class Turn:
    """A lock that goes to whoever has waited longest: a thread that writes again and again cannot keep the others waiting."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._line: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._mutex:
            if not self._held:
                self._held = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._line.append(mine)
        try:
            mine.acquire()
        except BaseException:
            # Whoever was interrupted as he waited leaves the line; where the turn was given to him just now, it is the next one's.
            with self._mutex:
                waiting = mine in self._line
                if waiting:
                    self._line.remove(mine)
            if not waiting:
                self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._line:
                self._line.popleft().release()
            else:
                self._held = False


class Line:
    """Those who write SQLite's log stand in line, of all processes; who is next is woken at once, where SQLite would sleep and look.

    Gives the connection on which the log is written, kept open from one time to the next; what fails on it is rolled back.
    """

    def __init__(self, engine: sa.Engine, path: Path, alone: bool) -> None:
        self._engine, self._path, self._alone = engine, path, alone
        self._turn = Turn()
        self._file = -1
        self._connection: sa.Connection | None = None

    def __enter__(self) -> sa.Connection:
        self._turn.__enter__()
        try:
            if not self._alone:
                if self._file < 0:
                    self._file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except BaseException:
            self._leave(failed=True)
            raise
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._leave(failed=kind is not None)

    def _leave(self, failed: bool) -> None:
        try:
            if failed:
                self._let_go()
            if self._file >= 0:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._turn.__exit__()

    def _let_go(self) -> None:
        if self._connection is not None:
            # Closed for good, it takes a transaction that was begun with it.
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Give connection and file back."""
        with self._turn:
            self._let_go()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
