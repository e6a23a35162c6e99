"""What was decided, what answers, what was answered, and what turned out to be true?

The store holds the ledger of decisions, the route, the log of predictions and the labels. Every table is
append-only: what is current is the newest row.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.dialects import postgresql, sqlite

from ratchet import schema
from ratchet.audit import Draw
from ratchet.decision import Decision
from ratchet.errors import StoreError
from ratchet.line import Line
from ratchet.log import LIVE, Log
from ratchet.prediction import Prediction
from ratchet.schema import decisions, draws, labels, looks, predictions, routes, shadows

CONNECT_SECONDS = 3
# A commit that finds SQLite's log of changes this long (16 MB) writes it into the database before it returns.
WAL_PAGES = 1000
_LOGGED = [column.name for column in predictions.columns if column.name != "seq"]
# The fields of a prediction are the columns, in their order.
assert tuple(_LOGGED) == Prediction.__struct_fields__[: len(_LOGGED)]
_AT = _LOGGED.index("at")
_INTO = f"INSERT INTO predictions ({', '.join(_LOGGED)})"
_NEW = " ON CONFLICT (id) DO NOTHING RETURNING id"
LABELS_A_LOOK = 20_000
# So many rows in one statement of SQLite's: a group of them is a transaction of its own, and few statements are prepared.
_MOST = 64


def _from_json(end: str = "") -> sa.TextClause:
    """PostgreSQL's statement that takes a JSON array of predictions."""
    dialect: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    types = ", ".join(f"{name} {predictions.c[name].type.compile(dialect)}" for name in _LOGGED)
    return sa.text(f"{_INTO} SELECT {', '.join(_LOGGED)} FROM json_to_recordset(CAST(:rows AS json)) AS told({types}){end}")


_FROM_JSON = {again: _from_json(_NEW if again else "") for again in (False, True)}
_PLACES = f"({', '.join('?' * len(_LOGGED))})"
_VALUES = [f"{_INTO} VALUES {', '.join([_PLACES] * n)}" for n in range(_MOST + 1)]


@dataclass(frozen=True)
class Route:
    """Which release is champion, since when, by which decision, and whether its live answers were verified.

    A challenger answers a share (0 to 1) of the live requests in the champion's place; a shadow scores them all, and
    nobody is told.
    """

    seq: int
    champion: str
    at: datetime
    decision: str
    verified: bool
    challenger: str | None = None
    share: float = 0.0
    shadow: str | None = None


@dataclass(frozen=True)
class Entry:
    """A decision as the ledger holds it."""

    id: str
    at: datetime
    action: str
    subject: str
    reasons: tuple[str, ...]
    evidence: dict[str, Any]
    by: str


def _route(row: Any) -> Route:
    return Route(row.seq, row.champion, row.at, row.decision, row.verified, row.challenger, row.share or 0.0, row.shadow)


def _insert(connection: sa.Connection, rows: Sequence[Prediction], again: bool) -> int:
    """Insert rows into SQLite in one statement; how many were new."""
    values: list[Any] = []
    at, text = None, ""
    for row in rows:
        told = msgspec.structs.astuple(row)
        if row.at is not at:
            # As SQLAlchemy writes and reads a moment in SQLite.
            at, text = row.at, row.at.isoformat(" ", "microseconds")
        values += told[:_AT]
        values.append(text)
        values += told[_AT + 1 : len(_LOGGED)]
    done = connection.exec_driver_sql(_VALUES[len(rows)] + (_NEW if again else ""), tuple(values))
    return len(done.all()) if again else len(rows)


def _news(rows: Sequence[dict[str, Any]], known: set[str], latest: dict[tuple[str, str], int]) -> list[bool | None]:
    """Of each label whether it is new, in their order; None where its prediction is not known."""
    values, told = dict(latest), list[bool | None]()
    for row in rows:
        key = row["prediction_id"], row["provenance"]
        told.append(values.get(key) != row["value"] if row["prediction_id"] in known else None)
        values[key] = row["value"]
    return told


def now() -> datetime:
    """The present, in UTC, without a zone, as the store keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _tune_sqlite(connection: Any, _: Any) -> None:
    # A reader never waits for the writer, and what was committed survives a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", f"wal_autocheckpoint={WAL_PAGES}"):
        connection.execute(f"PRAGMA {pragma}")


class Store(Log):
    """The ledger, the route, the log and the labels of one problem, behind one SQLAlchemy address."""

    def __init__(self, url: str, problem: str, *, checked: bool = True, alone: bool = False) -> None:
        """Open the store: SQLite makes or migrates its tables by itself, a server's must have been migrated.

        StoreError where it cannot be opened, or its tables are of another version. With `checked=False` nothing is
        asked of the database yet: `check` does it later. `alone` where no other process writes the log of predictions.
        """
        self.problem = problem
        self._tidier: sa.Connection | None = None
        self._label_at: datetime | None = None
        self._looked_to = 0
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
        if self._tidier is not None:
            self._tidier.close()
            self._tidier = None
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
                # Closing it for good frees the lock, whatever state the connection is in.
                connection.invalidate()

    # ---- the ledger

    def record(self, decision: Decision) -> bool:
        """Append a decision; False, and nothing changed, where the ledger holds it already."""
        row = {
            "id": decision.id,
            "problem": self.problem,
            "at": now(),
            "action": decision.action,
            "subject": decision.subject,
            "reasons": list(decision.reasons),
            "evidence": decision.evidence,
            "by": decision.by,
        }
        try:
            with self.engine.begin() as connection:
                connection.execute(sa.insert(decisions), row)
        except sa.exc.IntegrityError:
            return False
        return True

    def decisions(self, *actions: str, newest: int | None = None, subject: str | None = None) -> list[Entry]:
        """The decisions in the order they were taken; only those actions, and of that subject, where some are named."""
        query = sa.select(decisions).where(decisions.c.problem == self.problem).order_by(decisions.c.seq.desc())
        if actions:
            query = query.where(decisions.c.action.in_(actions))
        if subject is not None:
            query = query.where(decisions.c.subject == subject)
        with self.engine.connect() as connection:
            rows = connection.execute(query.limit(newest)).all()
        return [Entry(r.id, r.at, r.action, r.subject, tuple(r.reasons), r.evidence, r.by) for r in reversed(rows)]

    def deciding(self, version: str, seq: int, since: datetime, *actions: str) -> list[Entry]:
        """The decisions of those actions since then whose window, of that version, held a place of the log; oldest first."""
        inputs, d = decisions.c.evidence["inputs"], decisions.c
        first, last = (sa.cast(inputs[name].as_string(), sa.BigInteger) for name in ("from", "to"))
        query = sa.select(decisions).where(d.problem == self.problem, d.action.in_(actions), d.at >= since)
        held = (inputs["version"].as_string() == version, first <= seq, last >= seq)
        with self.engine.connect() as connection:
            rows = connection.execute(query.where(*held).order_by(d.seq)).all()
        return [Entry(r.id, r.at, r.action, r.subject, tuple(r.reasons), r.evidence, r.by) for r in rows]

    def decision(self, identity: str) -> Entry | None:
        """The decision of that id."""
        query = sa.select(decisions).where(decisions.c.problem == self.problem, decisions.c.id == identity)
        with self.engine.connect() as connection:
            r = connection.execute(query).first()
        return Entry(r.id, r.at, r.action, r.subject, tuple(r.reasons), r.evidence, r.by) if r else None

    @property
    def paused(self) -> bool:
        """Whether a person has paused automatic retraining."""
        last = self.decisions("pause", "resume", newest=1)
        return bool(last) and last[0].action == "pause"

    def look(self, decision: str | None) -> None:
        """Note that the monitor looked at the log, how far, and what it decided; the same window may be decided on once only."""
        before = self.looks(1)
        place, rows = self.arrived(before[-1][1] if before else None)
        told = {"problem": self.problem, "at": now(), "decision": decision, "place": place, "rows": rows}
        with self.engine.begin() as connection:
            connection.execute(sa.insert(looks), told)

    def looks(self, newest: int) -> list[tuple[datetime, int, int]]:
        """Of the newest looks, oldest first: when, the last live place of the log, and how many live rows had come since the one before."""
        query = sa.select(looks.c.at, looks.c.place, looks.c.rows).where(looks.c.problem == self.problem, looks.c.place.is_not(None))
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(looks.c.seq.desc()).limit(newest)).all()
        return [(row.at, row.place, row.rows) for row in reversed(rows)]

    def arrived(self, after: int | None) -> tuple[int, int]:
        """The newest live place of the log, 0 where there is none, and how many live rows there are after that place; 0 where it is None."""
        p = predictions.c
        parts = [(p.problem == self.problem) & (p.variant == variant) for variant in LIVE]
        with self.engine.connect() as connection:
            newest = max(connection.scalar(sa.select(sa.func.max(p.seq)).where(part)) or 0 for part in parts)
            if after is None:
                return newest, 0
            counted = [connection.scalar(sa.select(sa.func.count()).where(part, p.seq > after)) for part in parts]
        return newest, sum(count or 0 for count in counted)

    def decided_last(self) -> Entry | None:
        """What the newest look decided: where an earlier decision holds again, that one."""
        query = sa.select(looks.c.decision).where(looks.c.problem == self.problem, looks.c.decision.is_not(None))
        with self.engine.connect() as connection:
            identity = connection.scalar(query.order_by(looks.c.seq.desc()).limit(1))
        return self.decision(identity) if identity is not None else None

    def looked(self) -> datetime | None:
        """When the monitor last looked."""
        query = sa.select(looks.c.at).where(looks.c.problem == self.problem).order_by(looks.c.seq.desc()).limit(1)
        with self.engine.connect() as connection:
            return connection.scalar(query)

    # ---- the route

    def set_route(self, champion: str, decision: str, verified: bool = False) -> Route:
        """Let that version answer from now on; challenger and shadow stay, unless they are that version."""
        with self._routing():
            before = self.route()
            beside: dict[str, Any] = {}
            if before and before.challenger != champion:
                beside = {"challenger": before.challenger, "share": before.share}
            if before and before.shadow != champion:
                beside["shadow"] = before.shadow
            return self._set_route(champion=champion, decision=decision, verified=verified, **beside)

    def set_beside(self, decision: str, challenger: str | None, share: float, shadow: str | None) -> Route:
        """Let a challenger answer that share of the live requests, and a shadow score them; None is nobody.

        StoreError where no champion answers yet.
        """
        with self._routing():
            present = self.route()
            if present is None:
                raise StoreError(f"No model of {self.problem!r} answers yet; a challenger and a shadow stand beside one that does.")
            beside = {"challenger": challenger, "share": share, "shadow": shadow}
            return self._set_route(champion=present.champion, decision=decision, verified=present.verified, **beside)

    @contextmanager
    def _routing(self) -> Iterator[None]:
        """Whoever sets a route by the one before must be alone with it. StoreError where another does not come to its end."""
        with self.exclusive(f"route-{self.problem}", wait=30) as free:
            if not free:
                raise StoreError(f"Another process has been setting the route of {self.problem!r} for 30 s. Try again.")
            yield

    def _set_route(self, **row: Any) -> Route:
        with self.engine.begin() as connection:
            connection.execute(sa.insert(routes), {"problem": self.problem, "at": now()} | row)
        route = self.route()
        assert route is not None
        return route

    def routes(self, until: datetime | None = None) -> list[Route]:
        """Every route there was, oldest first."""
        query = sa.select(routes).where(routes.c.problem == self.problem).order_by(routes.c.seq)
        if until is not None:
            query = query.where(routes.c.at <= until)
        with self.engine.connect() as connection:
            return [_route(row) for row in connection.execute(query)]

    def route(self) -> Route | None:
        """What answers now; None before the first release."""
        query = sa.select(routes).where(routes.c.problem == self.problem).order_by(routes.c.seq.desc()).limit(1)
        with self.engine.connect() as connection:
            row = connection.execute(query).first()
        return _route(row) if row else None

    # ---- the log of predictions and the labels

    def log(self, rows: Sequence[Prediction], *, again: bool = False) -> int:
        """Append predictions in one transaction, all of them or none; how many were new.

        A prediction id that is there already is an IntegrityError; with `again` it is passed over, so that rows
        whose fate is not known can be handed in a second time.
        """
        if not self.local:
            with self.engine.begin() as connection:
                done = connection.execute(_FROM_JSON[again], {"rows": msgspec.json.encode(rows).decode()})
                return len(done.all()) if again else len(rows)
        # A thread waits for the interpreter after every step that it takes in the database: the fewer, the better.
        with self._line as connection:
            if len(rows) <= _MOST:
                return _insert(connection, rows, again)
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            new = sum(_insert(connection, rows[place : place + _MOST], again) for place in range(0, len(rows), _MOST))
            connection.exec_driver_sql("COMMIT")
            return new

    def answered(self, ids: Sequence[str]) -> list[Prediction]:
        """The logged rows of those prediction ids, in order; unknown ids are left out."""
        p = predictions.c
        found: dict[str, Prediction] = {}
        with self.engine.connect() as connection:
            for start in range(0, len(ids), 500):
                for row in connection.execute(sa.select(predictions).where(p.id.in_(ids[start : start + 500]))):
                    if row.problem == self.problem:
                        found[row.id] = Prediction(**{name: getattr(row, name) for name in _LOGGED})
        return [found[identity] for identity in ids if identity in found]

    def add_labels(self, rows: Sequence[dict[str, Any]]) -> list[bool | None]:
        """Append labels; of each whether it was new, None where the log does not know its prediction.

        A label equal to the latest one of its prediction and its provenance is not kept again; another value supersedes it.
        """
        ids = list({row["prediction_id"] for row in rows})
        known: set[str] = set()
        latest: dict[tuple[str, str], int] = {}
        with self.engine.connect() as connection:
            seen = connection.scalar(sa.select(sa.func.max(labels.c.seq))) or 0
            for start in range(0, len(ids), 500):
                part = ids[start : start + 500]
                # By id alone: asked for a problem too, SQLite would walk through all of that problem's rows.
                mine = sa.select(predictions.c.id, predictions.c.problem).where(predictions.c.id.in_(part))
                known |= {r.id for r in connection.execute(mine) if r.problem == self.problem}
                told_of = labels.c.prediction_id.in_(part)
                query = sa.select(labels.c.prediction_id, labels.c.value, labels.c.provenance).where(told_of, labels.c.seq <= seen)
                latest |= {(r.prediction_id, r.provenance): r.value for r in connection.execute(query.order_by(labels.c.seq))}
        told = _news(rows, known, latest)
        if not any(told):
            return told
        with self._writing_labels() as connection:
            # What others have written since then is known as well.
            since = sa.select(labels.c.prediction_id, labels.c.value, labels.c.provenance).where(labels.c.seq > seen).order_by(labels.c.seq)
            told = _news(rows, known, latest | {(r.prediction_id, r.provenance): r.value for r in connection.execute(since)})
            if fresh := [row for row, new in zip(rows, told, strict=True) if new]:
                connection.execute(sa.insert(labels), fresh)
        return told

    @contextmanager
    def _writing_labels(self) -> Iterator[sa.Connection]:
        """A transaction in which nobody else writes labels."""
        if self.local:
            # Who writes labels stands in line with who writes the log.
            with self._line as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                connection.exec_driver_sql("COMMIT")
            return
        with self.engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("ratchet labels"))))
            yield connection

    def log_shadows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append what a shadow would have answered; what is there already stays."""
        dialect: Any = sqlite if self.local else postgresql
        with self.engine.begin() as connection:
            connection.execute(dialect.insert(shadows).on_conflict_do_nothing(), list(rows))

    def checkpoint(self) -> None:
        """Let SQLite write its log of changes into the database, beside those who read and write; a server does so by itself.

        What is left to a commit then is little: whoever waits for it would wait for the rest too. For one thread at a time.
        """
        if not self.local:
            return
        if self._tidier is None:
            self._tidier = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            self._tidier.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").all()
        except sa.exc.SQLAlchemyError:
            self._tidier.close()
            self._tidier = None
            raise

    def counts(self) -> dict[str, int]:
        """How many predictions are logged, by variant."""
        query = (
            sa.select(predictions.c.variant, sa.func.count()).where(predictions.c.problem == self.problem).group_by(predictions.c.variant)
        )
        with self.engine.connect() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(query)}

    def set_draw(self, share: float, since: int, decision: str | None) -> Draw:
        """Let that share of the predictions be drawn for an audit, from a place of the log on."""
        row = {"problem": self.problem, "at": now(), "share": share, "since": since, "decision": decision}
        with self.engine.begin() as connection:
            connection.execute(sa.insert(draws), row)
        return Draw(share, since, decision)

    def freshness(self) -> dict[str, datetime | None]:
        """When the newest live prediction and the newest label came."""
        mine = predictions.c.problem == self.problem
        asked = [sa.select(predictions.c.at).where(mine, predictions.c.variant == v).order_by(predictions.c.seq.desc()) for v in LIVE]
        with self.engine.connect() as connection:
            newest = [at for query in asked if (at := connection.scalar(query.limit(1))) is not None]
            return {"prediction": max(newest, default=None), "label": self._newest_label(connection)}

    def _newest_label(self, connection: sa.Connection) -> datetime | None:
        """When the newest live label came: of those since the last look, 20,000 at most, else what was known then."""
        newest = connection.scalar(sa.select(sa.func.max(labels.c.seq))) or 0
        since = sa.select(labels.c.seq, labels.c.at, labels.c.prediction_id).where(labels.c.seq > self._looked_to)
        part = since.order_by(labels.c.seq.desc()).limit(LABELS_A_LOOK).subquery()
        # From the newest back to the first that is of a live prediction.
        live = sa.exists().where(
            predictions.c.id == part.c.prediction_id, (predictions.c.problem + "") == self.problem, predictions.c.variant.in_(LIVE)
        )
        found = connection.scalar(sa.select(part.c.at).where(live).order_by(part.c.seq.desc()).limit(1))
        self._label_at, self._looked_to = found or self._label_at, newest
        return self._label_at

    def decided(self) -> dict[str, tuple[int, datetime]]:
        """By action: how many decisions there are, and when the last one was taken."""
        d = decisions.c
        query = sa.select(d.action, sa.func.count(), sa.func.max(d.at)).where(d.problem == self.problem).group_by(d.action)
        with self.engine.connect() as connection:
            return {str(action): (int(count), last) for action, count, last in connection.execute(query)}

    def prediction(self, identity: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """A prediction's row and its labels, oldest first; None where the log does not know it."""
        p, entry = predictions.c, labels.c
        with self.engine.connect() as connection:
            row = connection.execute(sa.select(predictions).where(p.problem == self.problem, p.id == identity)).mappings().first()
            if row is None:
                return None
            told = connection.execute(sa.select(labels).where(entry.prediction_id == identity).order_by(entry.seq)).mappings().all()
        return dict(row), [dict(label) for label in told]
