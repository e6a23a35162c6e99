"""What was decided, what answers, what was answered, and what turned out to be true?

The store holds the ledger of decisions, the route, the log of predictions and the labels. Every table is
append-only: what is current is the newest row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import sqlalchemy as sa
from filelock import FileLock, Timeout

from ratchet.decision import Decision
from ratchet.errors import StoreError

SCHEMA_VERSION = 1
metadata = sa.MetaData()

schema_version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, primary_key=True))
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), nullable=False),
    sa.Column("problem", sa.String(64), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("subject", sa.String(128), nullable=False),
    sa.Column("reasons", sa.JSON, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("by", sa.String(64), nullable=False),
    sa.UniqueConstraint("problem", "id"),
)
routes = sa.Table(
    "routes",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("problem", sa.String(64), nullable=False, index=True),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("champion", sa.String(32), nullable=False),
    sa.Column("decision", sa.String(32), nullable=False),
    sa.Column("verified", sa.Boolean, nullable=False),
)
predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("problem", sa.String(64), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("variant", sa.String(16), nullable=False),
    sa.Column("propensity", sa.Float, nullable=False),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("label", sa.Integer, nullable=False),
    sa.Column("features", sa.Text, nullable=False),
    sa.Index("predictions_by_variant", "problem", "variant", "seq"),
)
labels = sa.Table(
    "labels",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("prediction_id", sa.String(32), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("value", sa.Integer, nullable=False),
    sa.Column("provenance", sa.String(64), nullable=False),
    sa.Index("labels_by_prediction", "prediction_id", "seq"),
)


@dataclass(frozen=True)
class Route:
    """Which release is champion, since when, by which decision, and whether its live answers were verified."""

    seq: int
    champion: str
    at: datetime
    decision: str
    verified: bool


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


def now() -> datetime:
    """The present, in UTC, without a zone, as the store keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _tune_sqlite(connection: Any, _: Any) -> None:
    # A reader never waits for the writer, and what was committed survives a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


class Store:
    """The ledger, the route, the log and the labels of one problem, behind one SQLAlchemy address."""

    def __init__(self, url: str, problem: str) -> None:
        """Open the store, and make its tables where they are missing.

        StoreError where it cannot be opened, or was written by another version of Ratchet.
        """
        self.url, self.problem = url, problem
        try:
            address = sa.make_url(url)
            self._lock_folder = Path(".")
            if address.get_backend_name() == "sqlite" and address.database:
                self._lock_folder = Path(address.database).parent
                self._lock_folder.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(address)
            if address.get_backend_name() == "sqlite":
                sa.event.listen(self.engine, "connect", _tune_sqlite)
            with self.exclusive("schema", wait=30), self.engine.begin() as connection:
                metadata.create_all(connection)
                found = connection.scalar(sa.select(schema_version.c.version))
                if found is None:
                    connection.execute(sa.insert(schema_version).values(version=SCHEMA_VERSION))
        except (sa.exc.SQLAlchemyError, OSError) as error:
            reason = getattr(error, "orig", None) or error
            raise StoreError(f"The store {url} cannot be opened: {reason}. Check DATABASE_URL and its folder.") from error
        if found not in (None, SCHEMA_VERSION):
            raise StoreError(f"The store {url} has schema {found}; this Ratchet reads {SCHEMA_VERSION}.")

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    @contextmanager
    def exclusive(self, name: str, wait: float = 0) -> Iterator[bool]:
        """Hold a lock of that name; yields whether it was free within `wait` seconds. It dies with the process."""
        lock = FileLock(self._lock_folder / f".{name}.lock")
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

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

    def decisions(self, *actions: str, newest: int | None = None) -> list[Entry]:
        """The decisions in the order they were taken; only those actions where some are named."""
        query = sa.select(decisions).where(decisions.c.problem == self.problem).order_by(decisions.c.seq.desc())
        if actions:
            query = query.where(decisions.c.action.in_(actions))
        with self.engine.connect() as connection:
            rows = connection.execute(query.limit(newest)).all()
        return [Entry(r.id, r.at, r.action, r.subject, tuple(r.reasons), r.evidence, r.by) for r in reversed(rows)]

    def decision(self, identity: str) -> Entry | None:
        """The decision of that id."""
        return next((entry for entry in self.decisions() if entry.id == identity), None)

    @property
    def paused(self) -> bool:
        """Whether a person has paused automatic retraining."""
        last = self.decisions("pause", "resume", newest=1)
        return bool(last) and last[0].action == "pause"

    # ---- the route

    def set_route(self, champion: str, decision: str, verified: bool = False) -> Route:
        """Let that version answer from now on."""
        row = {"problem": self.problem, "at": now(), "champion": champion, "decision": decision, "verified": verified}
        with self.engine.begin() as connection:
            connection.execute(sa.insert(routes), row)
        route = self.route()
        assert route is not None
        return route

    def routes(self, until: datetime | None = None) -> list[Route]:
        """Every route there was, oldest first."""
        query = sa.select(routes).where(routes.c.problem == self.problem).order_by(routes.c.seq)
        if until is not None:
            query = query.where(routes.c.at <= until)
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        return [Route(r.seq, r.champion, r.at, r.decision, r.verified) for r in rows]

    def route(self) -> Route | None:
        """What answers now; None before the first release."""
        query = sa.select(routes).where(routes.c.problem == self.problem).order_by(routes.c.seq.desc()).limit(1)
        with self.engine.connect() as connection:
            row = connection.execute(query).first()
        return Route(row.seq, row.champion, row.at, row.decision, row.verified) if row else None

    # ---- the log of predictions and the labels

    def log(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append predictions in one transaction: all of them or none."""
        with self.engine.begin() as connection:
            connection.execute(sa.insert(predictions), list(rows))

    def answered(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The logged answers of those prediction ids with their features, in order; unknown ids are left out."""
        p = predictions.c
        found: dict[str, dict[str, Any]] = {}
        with self.engine.connect() as connection:
            for start in range(0, len(ids), 500):
                query = sa.select(predictions).where(p.problem == self.problem, p.id.in_(ids[start : start + 500]))
                for row in connection.execute(query):
                    told = {"probability": row.probability, "label": row.label, "model_version": row.version, "features": row.features}
                    found[row.id] = {"prediction_id": row.id, **told}
        return [found[identity] for identity in ids if identity in found]

    def add_labels(self, rows: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
        """Append labels; returns how many were new, and the prediction ids that the log does not know.

        A label equal to the latest one of its prediction is not kept again; another value supersedes it.
        """
        ids = [row["prediction_id"] for row in rows]
        with self.engine.begin() as connection:
            known: set[str] = set()
            latest: dict[str, int] = {}
            for start in range(0, len(ids), 500):
                part = ids[start : start + 500]
                mine = sa.select(predictions.c.id).where(predictions.c.problem == self.problem, predictions.c.id.in_(part))
                known |= set(connection.scalars(mine))
                query = sa.select(labels.c.prediction_id, labels.c.value).where(labels.c.prediction_id.in_(part))
                latest |= {r.prediction_id: r.value for r in connection.execute(query.order_by(labels.c.seq))}
            fresh = []
            for row in rows:
                if row["prediction_id"] in known and latest.get(row["prediction_id"]) != row["value"]:
                    latest[row["prediction_id"]] = row["value"]
                    fresh.append(row)
            if fresh:
                connection.execute(sa.insert(labels), fresh)
        return len(fresh), [identity for identity in ids if identity not in known]

    def counts(self) -> dict[str, int]:
        """How many predictions are logged, by variant."""
        query = (
            sa.select(predictions.c.variant, sa.func.count()).where(predictions.c.problem == self.problem).group_by(predictions.c.variant)
        )
        with self.engine.connect() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(query)}

    def window(
        self,
        *,
        newest: int | None = None,
        after: int = 0,
        labelled: bool = False,
        version: str | None = None,
    ) -> pd.DataFrame:
        """Live predictions with their latest labels, oldest first; probes and load tests are left out.

        Columns: seq, id, at, version, probability, label, truth, label_at, provenance, then the request's columns.
        `newest` limits the rows, `after` is a seq, `labelled` keeps only rows whose label is in.
        """
        every = labels.alias()
        last = sa.select(sa.func.max(every.c.seq)).where(every.c.prediction_id == predictions.c.id).scalar_subquery()
        joined = predictions.join(labels, labels.c.seq == last, isouter=not labelled)
        query = (
            sa.select(
                predictions.c.seq,
                predictions.c.id,
                predictions.c.at,
                predictions.c.version,
                predictions.c.probability,
                predictions.c.label,
                labels.c.value.label("truth"),
                labels.c.at.label("label_at"),
                labels.c.provenance,
                predictions.c.features,
            )
            .select_from(joined)
            .where(predictions.c.problem == self.problem, predictions.c.seq > after)
            .where(predictions.c.variant.not_in(("probe", "load")))
            .order_by(predictions.c.seq.desc())
            .limit(newest)
        )
        if version is not None:
            query = query.where(predictions.c.version == version)
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        plain = pd.DataFrame(rows[::-1], columns=[column.name for column in query.selected_columns])
        features = pd.DataFrame([msgspec.json.decode(text) for text in plain.pop("features")], index=plain.index)
        return pd.concat([plain, features], axis=1)

    def freshness(self) -> dict[str, datetime | None]:
        """When the newest live prediction and the newest label came."""
        live = (predictions.c.problem == self.problem, predictions.c.variant.not_in(("probe", "load")))
        joined = labels.join(predictions, predictions.c.id == labels.c.prediction_id)
        with self.engine.connect() as connection:
            return {
                "prediction": connection.scalar(sa.select(sa.func.max(predictions.c.at)).where(*live)),
                "label": connection.scalar(sa.select(sa.func.max(labels.c.at)).select_from(joined).where(*live)),
            }
