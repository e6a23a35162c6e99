"""What does the log tell the watch: which predictions, with which labels, in which order?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pandas as pd
import sqlalchemy as sa

from ratchet.audit import AUDIT
from ratchet.contract import RESERVED
from ratchet.cycle import cycles
from ratchet.database import Database, now
from ratchet.lesson import Span
from ratchet.prediction import LIVE
from ratchet.schema import labels, looks, predictions, strays

# So many rows are asked for by their ids at once.
SOME = 1000
# Of so many labels of the store, of whatever problem, it is told which came of late.
LABELS_LATELY = 200_000
# A version with fewer predictions than these is young; no place of the log is as high as the last.
FEW, LAST = 20_000, 2**62


@dataclass(frozen=True)
class Stretch:
    """Predictions of a version that are looked at: the first and the last place of the log, and how many `rows` they are; 0 where none.

    Those in stretches `without` are not among them: so many are `spoilt`. `whole` is whether they are of whole cycles. `entity` is the column
    that tells whose each is, where one tells it.
    """

    first: int
    last: int
    rows: int
    spoilt: int = 0
    whole: bool = True
    without: tuple[Span, ...] = ()
    entity: str | None = None


class Log(Database):
    """One problem's predictions and labels, read by query, never the whole log."""

    def window(
        self,
        *,
        newest: int | None = None,
        after: int = 0,
        until: int | None = None,
        labelled: bool = False,
        version: str | None = None,
        spread: Stretch | None = None,
    ) -> pd.DataFrame:
        """Live predictions with their latest labels, oldest first; probes and load tests are left out.

        Columns: seq, id, at, version, probability, label, truth, label_at, label_seq (the label's place among all), provenance, relabelled
        (whether another label came before that said otherwise, audits aside), then the request's columns.
        `newest` limits the rows, `after` and `until` are places of the log, `labelled` keeps only rows whose label is in. `spread` asks for
        so many rows of a stretch instead of the newest ones, evenly spread over it.
        """
        every = labels.alias()
        last = sa.select(sa.func.max(every.c.seq)).where(every.c.prediction_id == predictions.c.id).scalar_subquery()
        before = labels.alias()
        another = (before.c.prediction_id == predictions.c.id, before.c.value != labels.c.value, before.c.provenance != AUDIT)
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
                labels.c.seq.label("label_seq"),
                labels.c.provenance,
                ((labels.c.provenance != AUDIT) & sa.exists().where(*another)).label("relabelled"),
                predictions.c.features,
            )
            .select_from(joined)
            .where(predictions.c.problem == self.problem, predictions.c.seq > after, predictions.c.variant.in_(LIVE))
            .order_by(predictions.c.seq.desc())
            .limit(newest)
        )
        if version is not None:
            query = query.where(predictions.c.version == version)
        if until is not None:
            query = query.where(predictions.c.seq <= until)
        if spread is not None and newest is not None:
            query = query.where(predictions.c.seq.in_(self._evenly(spread, newest, version, labelled)))
        elif newest is not None:
            # Each variant's newest rows stand at the end of its index: asked for all at once, the whole log would be sorted.
            parts = [query.where(predictions.c.variant == variant).subquery() for variant in LIVE]
            every_variant = sa.union_all(*(sa.select(part) for part in parts)).subquery()
            query = sa.select(every_variant).order_by(every_variant.c.seq.desc()).limit(newest)
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        plain = pd.DataFrame(rows[::-1], columns=[column.name for column in query.selected_columns])
        return with_features(plain)

    def stretch(
        self,
        rows: int,
        hours: float,
        version: str,
        *,
        since: datetime | None = None,
        labelled: bool = False,
        until: int | None = None,
        without: Sequence[Span] = (),
        entity: str | None = None,
    ) -> Stretch:
        """As many whole cycles of a version's newest live predictions as hold so many rows, or the newest so many rows where none is whole.

        `since` is from when on the version has answered, always where it is left out. What lies in stretches `without` is left out.
        """
        p, mine = predictions.c, self._live(version, labelled)
        mine += [] if until is None else [p.seq <= until]
        # As in `window`, each variant's newest rows stand at the end of its index.
        parts = [sa.select(p.seq, p.at).where(*mine, p.variant == v).order_by(p.seq.desc()).limit(rows).subquery() for v in LIVE]
        both = sa.union_all(*(sa.select(part) for part in parts)).subquery()
        with self.engine.connect() as connection:
            newest = connection.execute(sa.select(both.c.seq, both.c.at).order_by(both.c.seq.desc()).limit(rows)).all()
        if not newest:
            return Stretch(0, 0, 0, 0, not hours)
        last = min(newest[0].at, now())
        reach, age = last - newest[-1].at, timedelta.max if since is None else max(last - since, timedelta())
        count = cycles(max(reach, timedelta()), age, hours) if hours else 0
        if not count:
            return Stretch(newest[-1].seq, newest[0].seq, len(newest), 0, not hours, tuple(without), entity)
        first = self.place_at(last - timedelta(hours=count * hours)) + 1
        found = Stretch(first, newest[0].seq, 0, 0, True, tuple(without), entity)
        inside = sa.select(sa.func.count(), sa.func.sum(sa.case((sa.and_(True, *outside(found.without)), 1), else_=0))).select_from(
            predictions
        )
        with self.engine.connect() as connection:
            every, sound = connection.execute(inside.where(*mine, p.variant.in_(LIVE), p.seq.between(first, found.last))).one()
        return replace(found, rows=int(sound or 0), spoilt=int(every) - int(sound or 0))

    def _evenly(self, stretch: Stretch, rows: int, version: str | None, labelled: bool) -> sa.Select[Any]:
        """The places of so many of a stretch's predictions, evenly spread, the newest among them; of each entity, where it is told, its newest."""
        p = predictions.c
        whose = sa.null() if stretch.entity is None else self._sent(stretch.entity)
        again = sa.func.row_number().over(partition_by=whose, order_by=p.seq.desc())
        every = (
            sa.select(p.seq, whose.label("whose"), again.label("again")).where(*self._live(version, labelled), *within(stretch)).subquery()
        )
        order = sa.func.row_number().over(order_by=every.c.seq.desc()) - 1
        each = sa.select(every.c.seq, order.label("place"), sa.func.count().over().label("count"))
        each_once = each.where((every.c.again == 1) | every.c.whose.is_(None)).subquery()
        return sa.select(each_once.c.seq).where((each_once.c.place * rows) % each_once.c.count < rows)

    def _sent(self, name: str) -> sa.ColumnElement[Any]:
        """What was sent in a column."""
        sent = predictions.c.features
        if self.engine.dialect.name == "sqlite":
            return sa.func.json_extract(sent, f'$."{name}"')
        # PostgreSQL has no text with a character 0 in it.
        parsed: sa.ColumnElement[Any] = sa.cast(sa.func.replace(sent, r"\u0000", r"\ufffd"), sa.JSON)[name].as_string()
        return parsed

    def _live(self, version: str | None, labelled: bool = False) -> list[sa.ColumnElement[bool]]:
        p, told = predictions.c, sa.exists().where(labels.c.prediction_id == predictions.c.id)
        return [p.problem == self.problem, *([] if version is None else [p.version == version]), *([told] if labelled else [])]

    def requests(self, after: int, limit: int, version: str) -> pd.DataFrame:
        """The next logged requests of a version after a seq, oldest first, of every variant: seq, id, probability, the request's columns."""
        p = predictions.c
        # An expression keeps SQLite from an index on the problem, whose rows it would sort for every page.
        mine = (p.problem + "") == self.problem
        query = sa.select(p.seq, p.id, p.probability, p.features).where(mine, p.seq > after, p.version == version)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(p.seq).limit(limit)).all()
        plain = pd.DataFrame(rows, columns=["seq", "id", "probability", "features"])
        return with_features(plain)

    def outcomes(self, after: int, limit: int, version: str, until: int | None = None) -> pd.DataFrame:
        """The next labels of a version's live predictions after a label's seq, in the order in which they came.

        Columns: seq (the label's), prediction (the prediction's seq), wrong (whether the decision was), provenance, at (when it came), made
        (when the prediction was). The first label of each prediction counts: what corrects it later came at another time. Where the order in
        which labels come is of no use, `until` asks for those of predictions up to that place of the log, in the order of the predictions;
        then `after` is a prediction's place, and `at` when that was.
        """
        query, order = self._outcomes(version, until)
        with self.engine.connect() as connection:
            rows = connection.execute(query.where(order > after).order_by(order).limit(limit)).all()
        return pd.DataFrame(rows, columns=["seq", "prediction", "wrong", "provenance", "at", "made"])

    def place_before(self, version: str, place: int, rows: int) -> int:
        """The place of the log after which a version has so many live predictions before another place, 0 where it has fewer."""
        p = predictions.c
        # As in `window`, each variant's own rows are asked for.
        parts = [
            sa.select(p.seq)
            .where(*self._live(version), p.variant == variant, p.seq < place)
            .order_by(p.seq.desc())
            .limit(rows + 1)
            .subquery()
            for variant in LIVE
        ]
        both = sa.union_all(*(sa.select(part) for part in parts)).subquery()
        with self.engine.connect() as connection:
            return int(connection.scalar(sa.select(both.c.seq).order_by(both.c.seq.desc()).offset(rows).limit(1)) or 0)

    def between(self, version: str, first: int, last: int, most: int) -> int:
        """How many live predictions of a version there are from one place of the log on and before another, `most` at most."""
        p = predictions.c
        mine = (*self._live(version), p.variant.in_(LIVE), p.seq >= first, p.seq < last)
        with self.engine.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(sa.select(p.seq).where(*mine).limit(most).subquery())) or 0)

    def corrected(self, version: str, first: int, last: int) -> list[int]:
        """The places from one to another of the log where the newest label of a version's prediction says otherwise than the first one."""
        p = predictions.c
        query = (
            sa.select(p.seq, labels.c.value)
            .select_from(labels.join(predictions, p.id == labels.c.prediction_id))
            .where((p.problem + "") == self.problem, p.version == version, p.variant.in_(LIVE), p.seq >= first, p.seq <= last)
            .order_by(labels.c.seq)
        )
        told: dict[int, list[int]] = {}
        with self.engine.connect() as connection:
            for place, value in connection.execute(query):
                told.setdefault(int(place), []).append(value)
        return sorted(place for place, values in told.items() if values[0] != values[-1])

    def _outcomes(self, version: str, until: int | None) -> tuple[sa.Select[Any], sa.ColumnElement[int]]:
        """The first label of each live prediction of a version, and whether its decision was wrong; and what tells their order."""
        p, earlier = predictions.c, labels.alias()
        corrected = sa.exists().where(earlier.c.prediction_id == labels.c.prediction_id, earlier.c.seq < labels.c.seq)
        # Of a young version its own few predictions lead to their labels; of another the labels, in their order, to its predictions.
        young = self.between(version, 0, LAST, FEW) < FEW
        mine = p.problem if young else p.problem + ""
        order = labels.c.seq + 0 if young else labels.c.seq
        query = (
            sa.select(labels.c.seq, p.seq.label("prediction"), (labels.c.value != p.label).label("wrong"), labels.c.provenance)
            .add_columns((labels.c.at if until is None else p.at).label("at"), p.at.label("made"))
            .select_from(labels.join(predictions, p.id == labels.c.prediction_id))
            .where(mine == self.problem, p.version == version, p.variant.in_(LIVE), ~corrected)
        )
        return (query, order) if until is None else (query.where(p.seq <= until), p.seq)

    def delays(self, newest: int, until: int | None = None) -> pd.DataFrame:
        """Of the newest live predictions with a label that is no audit's, up to a place of the log: seq, at, label_at, truth; oldest first.

        The first label of each counts.
        """
        p, earlier = predictions.c, labels.alias()
        corrected = sa.exists().where(earlier.c.prediction_id == labels.c.prediction_id, earlier.c.seq < labels.c.seq)
        query = (
            sa.select(p.seq, p.at, labels.c.at.label("label_at"), labels.c.value.label("truth"))
            .select_from(labels.join(predictions, p.id == labels.c.prediction_id))
            .where((p.problem + "") == self.problem, p.variant.in_(LIVE), labels.c.provenance != AUDIT, ~corrected)
            .order_by(p.seq.desc())
            .limit(newest)
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query if until is None else query.where(p.seq <= until)).all()
        return pd.DataFrame(rows[::-1], columns=["seq", "at", "label_at", "truth"])

    def unlabelled(self, first: int, last: int, most: int) -> int:
        """How many live predictions from one place of the log to another have no label, `most` at most."""
        p, told = predictions.c, sa.exists().where(labels.c.prediction_id == predictions.c.id)
        mine = ((p.problem + "") == self.problem, p.variant.in_(LIVE), p.seq >= first, p.seq <= last, ~told)
        with self.engine.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(sa.select(p.seq).where(*mine).limit(most).subquery())) or 0)

    def place_at(self, at: datetime) -> int:
        """The place of the newest live prediction of that time or before, 0 where there is none."""
        p = predictions.c
        query = (
            sa.select(p.seq).where((p.problem + "") == self.problem, p.variant.in_(LIVE), p.at <= at).order_by(p.at.desc(), p.seq.desc())
        )
        with self.engine.connect() as connection:
            return int(connection.scalar(query.limit(1)) or 0)

    def labelled(self) -> bool:
        """Whether a label that is no audit's has ever come of a live prediction."""
        p = predictions.c
        known = labels.join(predictions, p.id == labels.c.prediction_id)
        mine = ((p.problem + "") == self.problem, p.variant.in_(LIVE), labels.c.provenance != AUDIT)
        query = sa.select(labels.c.seq).select_from(known).where(*mine).limit(1)
        with self.engine.connect() as connection:
            return connection.scalar(query) is not None

    def labelled_since(self, at: datetime) -> bool:
        """Whether a label of a live prediction, an audit's or another, has come since then."""
        p = predictions.c
        known = labels.join(predictions, p.id == labels.c.prediction_id)
        mine = ((p.problem + "") == self.problem, p.variant.in_(LIVE))
        query = sa.select(labels.c.at).select_from(known).where(*mine).order_by(labels.c.seq.desc()).limit(1)
        with self.engine.connect() as connection:
            newest = connection.scalar(query)
        return newest is not None and newest >= at

    def came_lately(self, since: datetime, most: int) -> tuple[int, int, str | None]:
        """Of the labels that came since then how many were of live predictions, and how many of predictions that the log does not know; with
        the newest such id. Audits are left out.

        Both are counted over the same time: since the newest `most` known ones began to come, or as many labels as are looked at.
        """
        p, order = predictions.c, labels.c.seq.desc()
        live = sa.exists().where(p.id == labels.c.prediction_id, (p.problem + "") == self.problem, p.variant.in_(LIVE))
        made = sa.exists().where(p.id == strays.c.prediction_id, (p.problem + "") == self.problem)
        with self.engine.connect() as connection:
            first = (connection.scalar(sa.select(sa.func.max(labels.c.seq))) or 0) - LABELS_LATELY
            before = connection.scalar(sa.select(labels.c.at).where(labels.c.seq <= first).order_by(order).limit(1))
            known = sa.select(labels.c.at).where(labels.c.seq > first, labels.c.provenance != AUDIT, labels.c.at >= since, live)
            newest = list(connection.scalars(known.order_by(order).limit(most)))
            begin = min(newest) if len(newest) == most else max(since, before or since)
            # Many labels come at one time.
            came = connection.scalar(sa.select(sa.func.count()).select_from(known.where(labels.c.at >= begin).subquery()))
            stray = sa.select(strays.c.prediction_id).where(strays.c.problem == self.problem, strays.c.at >= begin, ~made)
            astray = connection.scalar(sa.select(sa.func.count()).select_from(stray.subquery()))
            example = connection.scalar(stray.order_by(strays.c.at.desc(), strays.c.prediction_id).limit(1))
        return int(came or 0), int(astray or 0), example

    def label_before(self, at: datetime) -> int:
        """The place among all labels of the newest one that had come by then, 0 where none had."""
        query = sa.select(labels.c.seq).where(labels.c.at <= at).order_by(labels.c.seq.desc()).limit(1)
        with self.engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def looks_deciding(self, decisions: Collection[str], since: datetime) -> int:
        """How many looks at the log since then came to one of those decisions."""
        mine = (looks.c.problem == self.problem, looks.c.at > since, looks.c.decision.in_(decisions))
        with self.engine.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).where(*mine)) or 0)

    def asked(self, ids: Collection[str]) -> pd.DataFrame:
        """What was asked in those predictions, oldest first: id, seq, at, then the request's columns."""
        p, names, rows = predictions.c, list(ids), list[Any]()
        with self.engine.connect() as connection:
            for first in range(0, len(names), SOME):
                rows += connection.execute(sa.select(p.id, p.seq, p.at, p.features).where(p.id.in_(names[first : first + SOME]))).all()
        plain = pd.DataFrame(rows, columns=["id", "seq", "at", "features"]).sort_values("seq", ignore_index=True)
        return with_features(plain)


def with_features(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with what was sent in place of its text. A column that is named like one of the log's own is `NAME (sent)`."""
    sent = pd.DataFrame([msgspec.json.decode(text) for text in rows.pop("features")], index=rows.index)
    return pd.concat([rows, sent.rename(columns={name: f"{name} (sent)" for name in RESERVED})], axis=1)


def within(stretch: Stretch) -> list[sa.ColumnElement[bool]]:
    """What holds of a stretch's live predictions."""
    p = predictions.c
    return [p.variant.in_(LIVE), p.seq.between(stretch.first, stretch.last), *outside(stretch.without)]


def outside(spans: Sequence[Span]) -> list[sa.ColumnElement[bool]]:
    """What holds of predictions in none of some stretches."""
    return [~predictions.c.seq.between(first, last) for first, last in spans]
