"""What was answered, and what turned out to be true?

Every table but `strays` is append-only: what is current is the newest row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from hashlib import blake2b
from typing import Any, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ratchet.audit import Draw
from ratchet.audited import AuditedLog
from ratchet.database import now
from ratchet.ledger import Ledger
from ratchet.prediction import LIVE, Prediction
from ratchet.schema import draws, labels, predictions, shadows, strays

_LOGGED = [column.name for column in predictions.columns if column.name != "seq"]
# The fields of a prediction are the columns, in their order.
assert tuple(_LOGGED) == Prediction.__struct_fields__[: len(_LOGGED)]
_AT = _LOGGED.index("at")
_INTO = f"INSERT INTO predictions ({', '.join(_LOGGED)})"
_NEW = " ON CONFLICT (id) DO NOTHING RETURNING id"
LABELS_A_LOOK = 20_000
# So many characters of what was sent as an id are kept where no prediction has it, and so many bytes of what tells it from others.
STRAY_LENGTH, TOLD_BY = 64, 8
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


def _short(identity: str) -> str:
    """An id, or what begins like it where it is too long, and is another for another."""
    # PostgreSQL has no text with a character 0 in it.
    told = identity.replace("\0", "\ufffd")
    digest = blake2b(identity.encode(), digest_size=TOLD_BY).hexdigest()
    return told if len(told) <= STRAY_LENGTH else f"{told[: STRAY_LENGTH - len(digest) - 1]}~{digest}"


class Store(Ledger, AuditedLog):
    """One problem's store: its ledger, its log as the watch reads it, and here what is written of answers and labels, and asked about them."""

    def __init__(self, url: str, problem: str, *, checked: bool = True, alone: bool = False) -> None:
        """Open it, as a `Database` is opened."""
        self._tidier: sa.Connection | None = None
        self._label_at: datetime | None = None
        self._looked_to = 0
        super().__init__(url, problem, checked=checked, alone=alone)

    def close(self) -> None:
        """Give the connections back."""
        if self._tidier is not None:
            self._tidier.close()
            self._tidier = None
        super().close()

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

    def add_strays(self, ids: Collection[str]) -> None:
        """Note that labels were just sent of predictions that the log does not know; each of those ids counts once, however often it is sent."""
        at, dialect = now(), cast(Any, sqlite if self.local else postgresql)
        rows = [{"problem": self.problem, "prediction_id": identity, "at": at} for identity in sorted({_short(each) for each in ids})]
        insert = dialect.insert(strays)
        if rows:
            with self._writing_labels() as connection:
                connection.execute(
                    insert.on_conflict_do_update(index_elements=["problem", "prediction_id"], set_={"at": insert.excluded.at}), rows
                )

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
        self.set_draws(made := Draw(share, since, decision))
        return made

    def set_draws(self, *made: Draw) -> None:
        """Let these draws hold, in that order; all of them or none."""
        with self.engine.begin() as connection:
            for draw in made:
                row = {"problem": self.problem, "at": now(), "share": draw.share, "since": draw.since, "decision": draw.decision}
                connection.execute(sa.insert(draws), row)

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

    def prediction(self, identity: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """A prediction's row and its labels, oldest first; None where the log does not know it."""
        p, entry = predictions.c, labels.c
        with self.engine.connect() as connection:
            row = connection.execute(sa.select(predictions).where(p.problem == self.problem, p.id == identity)).mappings().first()
            if row is None:
                return None
            told = connection.execute(sa.select(labels).where(entry.prediction_id == identity).order_by(entry.seq)).mappings().all()
        return dict(row), [dict(label) for label in told]
