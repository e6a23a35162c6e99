"""What was decided, when did the watch look, and who answers since when?

Every table is append-only: what is current is the newest row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ratchet.database import Database, now
from ratchet.decision import Decision
from ratchet.errors import StoreError
from ratchet.prediction import LIVE
from ratchet.schema import decisions, looks, predictions, routes


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


def answers(entries: Iterable[Entry], decision: str) -> list[Entry]:
    """Those of the gate's decisions that are of a generation which that decision of the monitor asked for."""
    return [entry for entry in entries if entry.evidence["inputs"].get("trigger") == f"decision {decision}"]


def _entry(row: Any) -> Entry:
    return Entry(row.id, row.at, row.action, row.subject, tuple(row.reasons), row.evidence, row.by)


def _route(row: Any) -> Route:
    return Route(row.seq, row.champion, row.at, row.decision, row.verified, row.challenger, row.share or 0.0, row.shadow)


class Ledger(Database):
    """One problem's decisions, looks and routes."""

    # ---- decisions and looks

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
        return [_entry(row) for row in reversed(rows)]

    def deciding(self, version: str, seq: int, since: datetime, *actions: str) -> list[Entry]:
        """The decisions of those actions since then whose window, of that version, held a place of the log; oldest first."""
        inputs, d = decisions.c.evidence["inputs"], decisions.c
        first, last = (sa.cast(inputs[name].as_string(), sa.BigInteger) for name in ("from", "to"))
        query = sa.select(decisions).where(d.problem == self.problem, d.action.in_(actions), d.at >= since)
        held = (inputs["version"].as_string() == version, first <= seq, last >= seq)
        with self.engine.connect() as connection:
            rows = connection.execute(query.where(*held).order_by(d.seq)).all()
        return [_entry(row) for row in rows]

    def decision(self, identity: str) -> Entry | None:
        """The decision of that id."""
        query = sa.select(decisions).where(decisions.c.problem == self.problem, decisions.c.id == identity)
        with self.engine.connect() as connection:
            row = connection.execute(query).first()
        return _entry(row) if row else None

    @property
    def paused(self) -> bool:
        """Whether a person has paused automatic retraining."""
        last = self.decisions("pause", "resume", newest=1)
        return bool(last) and last[0].action == "pause"

    def look(self, decision: str | None) -> None:
        """Note that the monitor looked at the log, how far, and what it decided; the same window may be decided on once only."""
        # Two who look at once would count the same rows twice.
        with self.exclusive(f"look-{self.problem}", wait=10):
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

    def decided(self) -> dict[str, tuple[int, datetime]]:
        """By action: how many decisions there are, and when the last one was taken."""
        d = decisions.c
        query = sa.select(d.action, sa.func.count(), sa.func.max(d.at)).where(d.problem == self.problem).group_by(d.action)
        with self.engine.connect() as connection:
            return {str(action): (int(count), last) for action, count, last in connection.execute(query)}

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

    def answering(self, version: str) -> list[tuple[datetime, datetime | None]]:
        """From when until when a version answered, as champion or challenger; None where it does so still."""
        made: list[tuple[datetime, datetime | None]] = []
        for route in self.routes():
            open_now, mine = bool(made) and made[-1][1] is None, version in (route.champion, route.challenger)
            if mine and not open_now:
                made.append((route.at, None))
            elif open_now and not mine and route.verified:
                made[-1] = (made[-1][0], route.at)
        return made

    def steady(self, version: str) -> datetime | None:
        """Since when a version has answered about as large a share of the requests as it does now; None where it answers none.

        A share that was half as large, or twice, is as large still: but of a challenger that was promoted the rows of before are too few.
        """
        since, present = None, 0.0
        for route in reversed(self.routes()):
            share = route.share if version == route.challenger else 1.0 - route.share if version == route.champion else 0.0
            if since is None and not present:
                present = share
            if not share and not route.verified:
                continue
            if not present or not present / 2 <= share <= 2 * present:
                break
            since = route.at
        return since

    def route(self) -> Route | None:
        """What answers now; None before the first release."""
        query = sa.select(routes).where(routes.c.problem == self.problem).order_by(routes.c.seq.desc()).limit(1)
        with self.engine.connect() as connection:
            row = connection.execute(query).first()
        return _route(row) if row else None
