"""Which of the log's predictions were drawn for an audit, and what did audits find?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import isfinite

import numpy as np
import pandas as pd
import sqlalchemy as sa

from ratchet import schema
from ratchet.audit import AUDIT, Draw, chances, drawn, ends
from ratchet.lesson import Span
from ratchet.log import Log, Stretch, outside, with_features, within
from ratchet.lot import lot
from ratchet.prediction import LIVE
from ratchet.schema import draws, labels, predictions, routes

# Of so many rows the earliest is taken where a clock may be wrong.
SOME = 1000
# Rows that are looked at one after another are read so many at a time.
MANY = 20_000


class AuditedLog(Log):
    """One problem's log with its draws, and what audits have told of the predictions that were drawn."""

    def draws(self) -> list[Draw]:
        """Every draw there was, oldest first."""
        d = draws.c
        query = sa.select(d.share, d.since, d.decision, d.at).where(d.problem == self.problem).order_by(d.seq)
        with self.engine.connect() as connection:
            return [Draw(row.share, row.since, row.decision, row.at) for row in connection.execute(query)]

    def drawn(self, stretch: Stretch, version: str) -> pd.DataFrame:
        """Which of a version's live predictions of a stretch are drawn for an audit: seq and id, oldest first."""
        p, draws = predictions.c, self.draws()
        query = sa.select(p.seq, p.id).where(*self._live(version), *within(stretch))
        found = [("seq", np.zeros(0, int)), ("id", np.zeros(0, object))]
        parts = [pd.DataFrame(dict(found))]
        with self.engine.connect().execution_options(yield_per=MANY) as connection:
            for rows in connection.execute(query).partitions():
                part = pd.DataFrame(rows, columns=["seq", "id"])
                parts.append(part[drawn(part["id"], chances(draws, part["seq"].to_numpy(int)))])
        return pd.concat([part for part in parts if len(part)] or parts[:1]).sort_values("seq", ignore_index=True)

    def audits(self, version: str, after: int) -> pd.DataFrame:
        """A version's predictions after a place of the log of which an audit has told, oldest first: seq, id, probability, gold, outcome.

        Of what audits have found of one prediction, the newest counts; `outcome` is its newest label that is of no audit, NaN where there
        is none.
        """
        p = predictions.c
        # No label is older than its prediction: those of before are passed over by the index of audits. A clock may have run ahead.
        first = sa.select(p.at).where(p.seq > after).order_by(p.seq).limit(SOME).subquery()
        since = sa.select(sa.func.min(first.c.at)).scalar_subquery()
        beside = labels.alias()
        came = (
            sa.select(beside.c.value)
            .where(beside.c.prediction_id == p.id, beside.c.provenance != AUDIT)
            .order_by(beside.c.seq.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = (
            sa.select(p.seq, p.id, p.probability, labels.c.value.label("gold"), came.label("outcome"))
            .select_from(labels.join(predictions, p.id == labels.c.prediction_id))
            .where((p.problem + "") == self.problem, p.version == version, p.seq > after, schema.BY_AUDIT, labels.c.at >= since)
            .order_by(p.seq, labels.c.seq)
        )
        with self.engine.connect() as connection:
            told = pd.DataFrame(connection.execute(query).all(), columns=[column.name for column in query.selected_columns])
        return told.drop_duplicates("id", keep="last").reset_index(drop=True).astype({"outcome": float})

    def gold(self, since: int = 0) -> dict[str, int]:
        """By the ids of predictions from a place of the log on, what the newest audit of each found, also where another label came later."""
        p = predictions.c
        query = (
            sa.select(p.id, labels.c.value)
            .select_from(labels.join(predictions, p.id == labels.c.prediction_id))
            .where((p.problem + "") == self.problem, p.seq >= since, schema.BY_AUDIT)
            .order_by(labels.c.seq)
        )
        with self.engine.connect() as connection:
            return {row.id: int(row.value) for row in connection.execute(query)}

    def aged(self, version: str, until: datetime, newest: int) -> pd.DataFrame:
        """The newest live predictions of a version up to a time, oldest first, with what came back and what audits found.

        Columns: seq, id, at, label (the decision), probability, outcome (the newest label that is of no audit), gold (the newest that is
        of one), NaN where there is none, then the request's columns.
        """
        p = predictions.c
        # Rows of before are not walked through.
        since = self._routed(version)
        query = (
            sa.select(p.seq, p.id, p.at, p.label, p.probability, p.features)
            .where((p.problem + "") == self.problem, p.version == version, p.variant.in_(LIVE), p.at <= until, p.at >= since)
            .order_by(p.at.desc(), p.seq.desc())
            .limit(newest)
        )
        part = query.subquery()
        told = sa.select(labels.c.prediction_id, labels.c.value, labels.c.provenance).where(
            labels.c.prediction_id.in_(sa.select(part.c.id))
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
            values = connection.execute(told.order_by(labels.c.seq)).all() if rows else []
        plain = pd.DataFrame(rows[::-1], columns=[column.name for column in query.selected_columns])
        for name, by_audit in (("outcome", False), ("gold", True)):
            known = {identity: value for identity, value, provenance in values if (provenance == AUDIT) == by_audit}
            plain[name] = plain["id"].map(known).astype(float)
        return with_features(plain)

    def open_audits(self, since: datetime, version: str | None = None, without: Sequence[Span] = ()) -> set[str]:
        """The live predictions, of one version or all, that were drawn because audits were bought since then, and of which none has told yet.

        Those in stretches `without` tell nothing, and are not awaited.
        """
        p, told = predictions.c, sa.exists().where(labels.c.prediction_id == predictions.c.id, schema.BY_AUDIT)
        mine = [(p.problem + "") == self.problem, p.variant.in_(LIVE), *([] if version is None else [p.version == version])]
        mine += outside(without)
        left, every = set[str](), self.draws()
        with self.engine.connect() as connection:
            for draw, end in zip(every, ends(every), strict=True):
                if draw.decision is None or (draw.at is not None and draw.at < since):
                    continue
                ids = [row.id for row in connection.execute(sa.select(p.id).where(*mine, *_inside(draw, end), ~told))]
                left |= {identity for identity in ids if lot(identity) < draw.share}
        return left

    def told_of(self, draw: Draw, end: float, version: str) -> int | None:
        """Of how many of a version's live predictions that a draw up to some place drew audits have told; None where it drew none."""
        p, told = predictions.c, sa.exists().where(labels.c.prediction_id == predictions.c.id, schema.BY_AUDIT)
        mine = [(p.problem + "") == self.problem, p.variant.in_(LIVE), p.version == version]
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(p.id, told.label("told")).where(*mine, *_inside(draw, end))).all()
        found = [bool(row.told) for row in rows if lot(row.id) < draw.share]
        return sum(found) if found else None

    def bought(self, since: datetime) -> int:
        """Of how many predictions audits have told since then."""
        p = predictions.c
        mine = sa.exists().where(p.id == labels.c.prediction_id, (p.problem + "") == self.problem)
        query = sa.select(sa.func.count(sa.distinct(labels.c.prediction_id))).where(schema.BY_AUDIT, labels.c.at >= since, mine)
        with self.engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def _routed(self, version: str) -> datetime:
        """When a version was first routed to; before, it answered nobody. The end of time where it never was."""
        r = routes.c
        query = sa.select(sa.func.min(r.at)).where(r.problem == self.problem, (r.champion == version) | (r.challenger == version))
        with self.engine.connect() as connection:
            return connection.scalar(query) or datetime.max


def _inside(draw: Draw, end: float) -> list[sa.ColumnElement[bool]]:
    p = predictions.c
    return [p.seq >= draw.since, *([p.seq < int(end)] if isfinite(end) else [])]
