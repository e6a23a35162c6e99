"""How is the store's database reached, kept at today's revision, and locked against other processes?"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from ratchet import schema
from ratchet.errors import StoreError
from ratchet.line import Line

CONNECT_SECONDS = 3
# A commit that finds SQLite's log of changes this long (16 MB) writes it into the database before it returns.
WAL_PAGES = 1000


def now() -> datetime:
    """The present, in UTC, without a zone, as the store keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _tune_sqlite(connection: Any, _: Any) -> None:
    # A reader never waits for the writer, and what was committed survives a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", f"wal_autocheckpoint={WAL_PAGES}"):
        connection.execute(f"PRAGMA {pragma}")


class Database:
    """One problem's part of the database behind one SQLAlchemy address."""

    def __init__(self, url: str, problem: str, *, checked: bool = True, alone: bool = False) -> None:
        """Open the store: SQLite makes or migrates its tables by itself, a server's must have been migrated.

        StoreError where it cannot be opened, or its tables are of another version. With `checked=False` nothing is
        asked of the database yet: `check` does it later. `alone` where no other process writes the log of predictions.
        """
        self.problem = problem
        try:
            address = sa.make_url(url)
            self.url = address.render_as_string(hide_password=True)
            self.local = address.get_backend_name() == "sqlite"
            if self.local:
                self._folder = Path(address.database or ".").parent
                self._folder.mkdir(parents=True, exist_ok=True)
                self.engine = sa.create_engine(address)
                sa.event.listen(self.engine, "connect", _tune_sqlite)
                self._line = Line(self.engine, self._folder / ".log.lock", alone)
            else:
                # A server may have been restarted since a connection was last used, and may be away.
                self.engine = sa.create_engine(address, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_SECONDS})
        except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
            raise self._unusable(error, url) from error
        if checked:
            self.check()

    def check(self) -> None:
        """StoreError where the store cannot be reached, or its tables are of another version."""
        try:
            with self.engine.connect() as connection:
                found = schema.revision(connection)
            if found != schema.HEAD and self.local:
                self.migrate()
            elif found != schema.HEAD:
                with self.engine.connect() as connection:
                    schema.require(connection, self.url)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise self._unusable(error, self.url) from error

    def migrate(self) -> tuple[str | None, str]:
        """Bring the tables to today's revision; the one they had, and today's. StoreError where they are newer."""
        try:
            with self.exclusive("schema", wait=60) as free:
                if not free:
                    raise StoreError(f"The store {self.url} is being migrated by another process. Wait for it.")
                with self.engine.begin() as connection:
                    return schema.migrate(connection, self.url), schema.HEAD
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise self._unusable(error, self.url) from error

    @staticmethod
    def _unusable(error: Exception, url: str) -> StoreError:
        lines = str(getattr(error, "orig", None) or error).strip().splitlines()
        # A driver lists each address that it tried; the last line says why the last one failed.
        said = next((line.strip(" -") for line in reversed(lines) if "failed" in line or "could not" in line), lines[0] if lines else "")
        return StoreError(f"The store {url} cannot be opened: {said.rstrip('.')}. Check DATABASE_URL, its password and that it runs.")

    def close(self) -> None:
        """Give the connections back."""
        if self.local:
            self._line.close()
        self.engine.dispose()

    @contextmanager
    def exclusive(self, name: str, wait: float = 0) -> Iterator[bool]:
        """Hold a lock of that name; yields whether it was free within `wait` seconds. It dies with the process.

        A file beside SQLite's, so for the processes of one machine; PostgreSQL's advisory lock, so for all of them.
        """
        if self.local:
            lock = FileLock(self._folder / f".{name}.lock")
            try:
                lock.acquire(timeout=wait)
            except Timeout:
                yield False
                return
            try:
                yield True
            finally:
                lock.release()
            return
        key = {"key": int.from_bytes(hashlib.blake2b(f"ratchet:{name}".encode(), digest_size=8).digest(), signed=True)}
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            deadline = time.monotonic() + wait
            while not (free := bool(connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), key))):
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.2)
            try:
                yield free
            finally:
                # Given back by word, as the server may see a closed connection only after the next has asked; and closed
                # for good, which frees the lock of a connection that can say nothing any more.
                try:
                    with suppress(sa.exc.DBAPIError):
                        connection.execute(sa.text("SELECT pg_advisory_unlock_all()"))
                finally:
                    connection.invalidate()
