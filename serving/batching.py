"""How are requests that arrive together answered together? Decoded one by one, scored at once, committed at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ratchet.data.arrow import read_stream, write_stream
from ratchet.data.rows import defects
from ratchet.data.rules import keeps, used
from ratchet.database import now
from ratchet.errors import BatchError
from ratchet.experiment.routing import challenged
from ratchet.prediction import Prediction, fresh_ids
from ratchet.problem import Folder
from ratchet.release import Release
from ratchet.request import explain, records, request_type
from serving import metrics
from serving.log import PredictionLog
from serving.routed import Routed

logger = logging.getLogger("ratchet.serving")
MAX_ROWS = 10_000
# Rows that are scored and committed at once: enough to share the cost, few enough that the first need not wait for the last.
GROUP_ROWS = 2048
# A table is one transaction, for which the others wait: a tenth of a second at the most.
MAX_TABLE = 20_000
MAX_TABLE_BODY = 64 * 1024 * 1024
# Rows that may wait for the shadow; what comes on top is left out.
MOST_SHADED = 2 * MAX_TABLE
TABLE = "application/vnd.apache.arrow.stream"
# A body from this size on is decoded and scored in a thread: the others would wait for it.
LARGE_BODY = 64 * 1024
VARIANTS = frozenset({"champion", "probe", "load"})
_encode = msgspec.json.Encoder().encode
# Rows column by column: lists, or a table's series.
Columns = dict[str, Any]


class Answer(msgspec.Struct):
    """One prediction as its client gets it; `interval` is null where the release has none."""

    prediction_id: str
    probability: float
    label: int
    interval: tuple[float, float] | None
    model_version: str
    variant: str


class Reply(NamedTuple):
    """What goes back: a status, a JSON body, and for the books the ids and the version that answered."""

    status: int
    body: bytes
    ids: Sequence[str] = ()
    version: str = ""
    kind: str = "application/json"


class Ask:
    """A request for predictions that waits: its body, its variant, and whom to tell."""

    __slots__ = ("begun", "body", "lines", "many", "rows", "settle", "variant", "weight")

    def __init__(self, body: bytes, variant: str, settle: Callable[[Ask, Reply], None]) -> None:
        self.body, self.variant, self.settle = body, variant, settle
        self.begun = time.perf_counter()
        self.many = False
        self.weight = 0
        self.rows: list[Any] = []
        self.lines: list[Prediction] = []


class Refusal(Exception):
    """A request that is answered with a 4xx or 503, and why."""

    def __init__(self, status: int, **told: Any) -> None:
        super().__init__(told["error"])
        self.status, self.told = status, told

    @property
    def reply(self) -> Reply:
        """The refusal as it goes back."""
        return Reply(self.status, _encode(self.told))


class Batcher:
    """Everything that waits is answered in groups: while one group is committed the next one is scored.

    Under no load a group is one request; under full load it is as many as arrived while the group before was committed.
    `most` is how much may wait: a request counts as one, a large one as its kilobytes. What comes on top is refused at once, with
    503, unless nothing else waits.
    """

    def __init__(self, folder: Folder, routed: Routed, log: PredictionLog, most: int) -> None:
        self._contract, self._problem = folder.contract, folder.problem
        self._routed, self._log, self._most = routed, log, most
        record = request_type(self._contract)
        self._one = msgspec.json.Decoder(record)
        self._array = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]
        self._fields = record.__struct_fields__
        self._entity = self._fields.index(self._contract.entity) if self._contract.entity in self._fields else None
        # Rules about the outcome, the time or an id say nothing about a request.
        asked = {column.name for column in self._contract.requested}
        rules = [(rule, sorted(used(rule, self._contract))) for rule in self._contract.rules]
        self._rules = [(rule, names) for rule, names in rules if asked >= set(names)]
        self._asks: list[Ask] = []
        self.waiting = 0
        self._scheduled = False
        # A store that hangs keeps the shadow waiting, and nobody else.
        self._large, self._dark = ThreadPoolExecutor(1, "large"), ThreadPoolExecutor(1, "shadow")
        self._shaded = 0

    def admit(self, ask: Ask, size: int) -> None:
        """Count a request until it is settled. Refusal (503) where too much waits already."""
        weight = max(1, size // 1024)
        if self.waiting and self.waiting + weight > self._most:
            metrics.shed.inc()
            raise Refusal(503, error="Too much waits already; the service takes no more. Try again.")
        ask.weight = weight
        self.waiting += weight

    def settle(self, ask: Ask, reply: Reply) -> None:
        """Tell a request, and count it no longer; what goes wrong there is its own affair."""
        self.waiting -= ask.weight
        ask.weight = 0
        try:
            ask.settle(ask, reply)
        except Exception:
            logger.exception("a request could not be told")

    def take(self, ask: Ask) -> None:
        """Let a request wait for the next group, or refuse it at once where too much waits already."""
        try:
            self.admit(ask, len(ask.body))
        except Refusal as refusal:
            ask.settle(ask, refusal.reply)
            return
        if len(ask.body) >= LARGE_BODY:
            done = asyncio.get_running_loop().run_in_executor(self._large, self._prepare, ask)
            done.add_done_callback(lambda done: self._prepared(ask, done))
            return
        self._asks.append(ask)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._gather)

    def _gather(self) -> None:
        """Let the event loop look at its sockets once more: who asks now is of the same group."""
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self.serve)

    async def quietly(self, size: int, do: Callable[..., None], *arguments: Any) -> None:
        """Do that here, or in a thread where it is about a large body: the others would wait for it."""
        if size < LARGE_BODY:
            do(*arguments)
        else:
            await asyncio.get_running_loop().run_in_executor(self._large, do, *arguments)

    async def table(self, body: bytes, variant: str) -> Reply:
        """Answer an Arrow stream with one. Refusal (422) where a column or a row breaks the contract, (503) where too much waits."""
        ask = Ask(b"", variant, lambda *_: None)
        self.admit(ask, len(body))
        try:
            await self.quietly(MAX_TABLE_BODY, self._read_table, ask, body)
            await self._log.append(ask.lines)
        finally:
            self.settle(ask, Reply(200, b""))
        lines = ask.lines
        self.logged([ask])
        names = {"prediction_id": "id", "model_version": "version"}
        told = ("prediction_id", "probability", "label", "low", "high", "model_version", "variant")
        columns = {name: [getattr(line, names.get(name, name)) for line in lines] for name in told}
        return Reply(200, write_stream(columns), [line.id for line in lines], lines[0].version, TABLE)

    def _read_table(self, ask: Ask, body: bytes) -> None:
        """In a thread: read the rows of a table, judge and score them."""
        try:
            frame = read_stream(body, self._contract, MAX_TABLE)
        except BatchError as error:
            raise Refusal(422, error=str(error)) from error
        wrong = defects(frame, self._contract)
        bad = [row for row, reason in enumerate(wrong) if reason is not None]
        if bad:
            raise Refusal(422, error=f"{wrong[bad[0]]} ({len(bad)} such rows).", row=bad[0])
        ask.rows = records(frame, self._contract)
        entity = self._contract.entity
        if self._entity is not None and entity in frame:
            for row, name in zip(ask.rows, frame[entity].tolist(), strict=True):
                row |= {} if name is None else {entity: name}
        self.score_one(ask, columns={str(column): frame[column] for column in frame})

    async def reply(self, body: bytes, variant: str) -> Reply:
        """The same for one who can wait."""
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.take(Ask(body, variant, lambda _, reply: None if done.done() else done.set_result(reply)))
        return await done

    def serve(self) -> None:
        """Score a group of what waits, unless one is scored already: then once that is being committed."""
        self._scheduled = False
        if not self._asks:
            return
        if self._log.pending:
            self._log.then(self._gather)
            return
        asks: list[Ask] = []
        rows = taken = 0
        for ask in self._asks:
            taken += 1
            try:
                self.decode(ask)
            except Refusal as refusal:
                self.settle(ask, refusal.reply)
                continue
            asks.append(ask)
            rows += len(ask.rows)
            if rows >= GROUP_ROWS:
                break
        self._asks = self._asks[taken:]
        if asks:
            try:
                broken = self.score(asks)
            except Refusal as refusal:
                for ask in asks:
                    self.settle(ask, refusal.reply)
            except Exception:
                logger.exception("a group of requests could not be answered")
                for ask in asks:
                    self.settle(ask, Reply(500, _encode({"error": "This is a fault of the service; its log has more."})))
            else:
                for ask, refused in broken.items():
                    self.settle(ask, refused.reply)
                if kept := [ask for ask in asks if ask not in broken]:
                    self._commit(kept)
        if self._asks and not self._scheduled:
            self._log.then(self._gather)

    def _prepare(self, ask: Ask) -> None:
        self.decode(ask)
        self.score_one(ask)

    def _prepared(self, ask: Ask, done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is None:
            self._commit([ask])
        elif isinstance(error, Refusal):
            self.settle(ask, error.reply)
        else:
            logger.error("a large request could not be answered", exc_info=error)
            self.settle(ask, Reply(500, _encode({"error": "This is a fault of the service; its log has more."})))

    def _commit(self, asks: list[Ask]) -> None:
        lines = asks[0].lines if len(asks) == 1 else [line for ask in asks for line in ask.lines]
        self._log.put(lines, lambda error: self._committed(asks, error))

    def _committed(self, asks: list[Ask], error: Exception | None) -> None:
        """Answer: what is logged may leave."""
        if error is not None:
            reply = Refusal(503, error="The log cannot be written, so nothing was answered. Try again.").reply
            for ask in asks:
                self.settle(ask, reply)
            return
        for ask in asks:
            self.settle(ask, reply_of(ask.lines, ask.many))
        self.logged(asks)

    def logged(self, asks: list[Ask]) -> None:
        """Count predictions that are logged, and hand the live ones to the shadow."""
        counts: dict[tuple[str, str], int] = {}
        for ask in asks:
            for line in ask.lines:
                key = (line.version, line.variant)
                counts[key] = counts.get(key, 0) + 1
        for (version, variant), count in counts.items():
            metrics.predictions.labels(version, variant).inc(count)
        if self._routed.shadow is not None:
            self._shadow(self._routed.shadow, [line for ask in asks if ask.variant == "champion" for line in ask.lines])

    # ---- what a group is made of

    def decode(self, ask: Ask) -> None:
        """Read and validate the records of a request. Refusal (422) with field, row and reason."""
        body = ask.body
        try:
            if body[:1] == b"{":
                ask.rows = [self._one.decode(body)]
            elif body.lstrip()[:1] == b"[":
                ask.many, ask.rows = True, self._array.decode(body)
            else:
                ask.rows = [self._one.decode(body)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(422, **explain(error, self._contract)) from error
        if not 0 < len(ask.rows) <= MAX_ROWS:
            raise Refusal(422, error=f"The array holds {len(ask.rows)} records; send 1 to {MAX_ROWS}.")

    def score(self, asks: list[Ask], ids: list[str] | None = None, columns: Columns | None = None) -> dict[Ask, Refusal]:
        """Give every row of a group its probability, and the line that is logged of it.

        Requests with a row that breaks a rule of the contract are not scored: they are returned, each with its refusal
        (422). Refusal where no model answers yet.
        """
        champion, challenger, share = self._routed.champion, self._routed.challenger, self._routed.share
        if champion is None:
            raise Refusal(503, error=f"No model of {self._problem.name!r} has been released yet. Run `ratchet run {self._problem.name}`.")
        columns = columns or self._columns(asks)
        broken = self._broken(asks, columns)
        if broken:
            asks = [ask for ask in asks if ask not in broken]
            if not asks:
                return broken
            columns = self._columns(asks)
        rows = asks[0].rows if len(asks) == 1 else [row for ask in asks for row in ask.rows]
        ids = ids or fresh_ids(len(rows))
        if challenger is None:
            lines = self._lines(champion, rows, columns, ids, np.ones(len(rows)), now())
        else:
            lines = self._divided(champion, challenger, share, asks, rows, columns, ids)
        place = 0
        for ask in asks:
            ask.lines = lines[place : place + len(ask.rows)]
            place += len(ask.rows)
            if ask.variant != "champion":
                for line in ask.lines:
                    line.variant = ask.variant
        return broken

    def score_one(self, ask: Ask, ids: list[str] | None = None, columns: Columns | None = None) -> None:
        """The same for one request, whose columns may be known. Refusal where it breaks a rule, too."""
        for refusal in self.score([ask], ids, columns).values():
            raise refusal

    def _broken(self, asks: list[Ask], columns: Columns) -> dict[Ask, Refusal]:
        """The requests with a row that breaks a rule across columns, and the first such row of each."""
        broken: dict[Ask, Refusal] = {}
        for rule, names in self._rules:
            breaks = np.flatnonzero(~keeps(columns, rule, self._contract))
            for place in breaks.tolist():
                start = 0
                for ask in asks:
                    if place < start + len(ask.rows):
                        row = {"row": place - start} if ask.many else {}
                        sentence = f"{rule.reason} (rule {rule.name!r} of the contract: {rule.expression})."
                        broken.setdefault(ask, Refusal(422, error=sentence, field=names[0], fields=names, rule=rule.name, **row))
                        break
                    start += len(ask.rows)
        return broken

    def _columns(self, asks: list[Ask]) -> Columns:
        """The rows of a group, column by column."""
        rows = (msgspec.structs.astuple(row) for ask in asks for row in ask.rows)
        return dict(zip(self._fields, map(list, zip(*rows, strict=True)), strict=True))

    def _divided(
        self,
        champion: Release,
        challenger: Release,
        share: float,
        asks: list[Ask],
        rows: list[Any],
        columns: Columns,
        ids: list[str],
    ) -> list[Prediction]:
        """The lines of a group of which the challenger answers its share. Probes and load tests are the champion's."""
        live = [ask.variant == "champion" for ask in asks for _ in ask.rows]
        columns = {name: list(values) for name, values in columns.items()}
        named = self._fields[self._entity] if self._entity is not None else ""
        units = columns.get(named, [msgspec.UNSET] * len(rows))
        mine = np.array(
            [
                own and challenged(identity if unit is msgspec.UNSET or unit is None else str(unit), challenger.version, share)
                for own, unit, identity in zip(live, units, ids, strict=True)
            ]
        )
        propensity = np.where(live, np.where(mine, share, 1 - share), 1.0)
        lines: list[Prediction] = [None] * len(rows)  # type: ignore[list-item]
        at = now()
        for release, places in ((champion, np.flatnonzero(~mine)), (challenger, np.flatnonzero(mine))):
            if places.size:
                part = {name: [values[i] for i in places] for name, values in columns.items()}
                made = self._lines(release, [rows[i] for i in places], part, [ids[i] for i in places], propensity[places], at)
                for place, line in zip(places, made, strict=True):
                    lines[place] = line
                    if release is challenger:
                        line.variant = "challenger"
        return lines

    def _lines(
        self, release: Release, rows: list[Any], columns: Columns, ids: list[str], propensity: np.ndarray, at: datetime
    ) -> list[Prediction]:
        probability = release.scorer.probability(columns)
        bounds = release.interval.of(probability).tolist() if release.interval else [(None, None)] * len(rows)
        name, version, threshold = self._problem.name, release.version, release.threshold
        return [
            Prediction(identity, name, at, version, "champion", weight, p, int(p >= threshold), _encode(row).decode(), low, high)
            for identity, weight, p, row, (low, high) in zip(ids, propensity.tolist(), probability.tolist(), rows, bounds, strict=True)
        ]

    # ---- the shadow

    def _shadow(self, shadow: Release, live: list[Prediction]) -> None:
        """Score live rows that have been answered once more, in a thread and for the log alone. Nobody waits for it."""
        if not live:
            return
        if self._shaded + len(live) > MOST_SHADED:
            metrics.shadows.labels("left_out").inc(len(live))
            return
        self._shaded += len(live)
        done = asyncio.get_running_loop().run_in_executor(self._dark, self._shade, shadow, live)
        done.add_done_callback(lambda done: self._shade_done(len(live), done.exception()))

    def _shade(self, shadow: Release, lines: list[Prediction]) -> None:
        rows = [msgspec.structs.astuple(self._one.decode(line.features)) for line in lines]
        columns = dict(zip(self._fields, map(list, zip(*rows, strict=True)), strict=True))
        probability = shadow.scorer.probability(columns).tolist()
        at = now()
        self._log.shadow(
            [
                {"prediction_id": line.id, "version": shadow.version, "at": at, "probability": p, "label": int(p >= shadow.threshold)}
                for line, p in zip(lines, probability, strict=True)
            ]
        )

    def _shade_done(self, rows: int, error: BaseException | None) -> None:
        self._shaded -= rows
        metrics.shadows.labels("left_out" if error else "stored").inc(rows)
        if error:
            logger.warning("the shadow's answers were not kept", extra={"rows": rows, "why": str(error).splitlines()[0]})


def reply_of(lines: Sequence[Prediction], many: bool) -> Reply:
    """The logged lines of one request as its client gets them."""
    answers = [
        Answer(
            line.id,
            line.probability,
            line.label,
            None if line.low is None or line.high is None else (line.low, line.high),
            line.version,
            line.variant,
        )
        for line in lines
    ]
    return Reply(200, _encode(answers if many else answers[0]), [line.id for line in lines], lines[0].version)
