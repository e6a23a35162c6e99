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
from ratchet.errors import BatchError
from ratchet.experiment.routing import challenged
from ratchet.prediction import Prediction, fresh_ids
from ratchet.problem import Folder
from ratchet.release import Release
from ratchet.request import explain, records, request_type
from ratchet.store import now
from serving import metrics
from serving.log import PredictionLog
from serving.routed import Routed

logger = logging.getLogger("ratchet.serving")
MAX_ROWS = 10_000
# Rows that are scored and committed at once: enough to share the cost, few enough that the first need not wait for the last.
GROUP_ROWS = 2048
# Rows of one large request that are committed at once, and most rows of a table.
PART_ROWS = 4096
MAX_TABLE = 100_000
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

    __slots__ = ("begun", "body", "lines", "many", "rows", "settle", "variant")

    def __init__(self, body: bytes, variant: str, settle: Callable[[Ask, Reply], None]) -> None:
        self.body, self.variant, self.settle = body, variant, settle
        self.begun = time.perf_counter()
        self.many = False
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
    `most` is how many rows may wait; what comes on top is refused at once, with 503.
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
        self._waiting = 0
        self._scheduled = False
        self._thread = ThreadPoolExecutor(1, "large")
        self._shaded = 0

    def take(self, ask: Ask) -> None:
        """Let a request wait for the next group, or refuse it at once where too many wait already."""
        if self._waiting + self._log.waiting >= self._most:
            metrics.shed.inc()
            ask.settle(ask, self._too_many().reply)
            return
        if len(ask.body) >= LARGE_BODY:
            asyncio.get_running_loop().run_in_executor(self._thread, self._prepare, ask).add_done_callback(
                lambda done: self._prepared(ask, done)
            )
            return
        self._asks.append(ask)
        self._waiting += 1
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._gather)

    def _gather(self) -> None:
        """Let the event loop look at its sockets once more: who asks now is of the same group."""
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self.serve)

    def _too_many(self) -> Refusal:
        return Refusal(503, error=f"{self._most} rows wait already; the service takes no more. Try again.")

    async def table(self, body: bytes, variant: str) -> Reply:
        """Answer an Arrow stream with one. Refusal (422) where a column or a row breaks the contract, (503) where too many rows wait."""
        if self._waiting + self._log.waiting >= self._most:
            metrics.shed.inc()
            raise self._too_many()
        ask = Ask(b"", variant, lambda *_: None)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._read_table, ask, body)
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._keep_in_parts(ask.lines, lambda error: None if done.done() else done.set_result(error))
        if error := await done:
            raise error
        lines = ask.lines
        metrics.predictions.labels(lines[0].version, lines[0].variant).inc(len(lines))
        names = {"prediction_id": "id", "model_version": "version"}
        told = ("prediction_id", "probability", "label", "low", "high", "model_version", "variant")
        columns = {name: [getattr(line, names.get(name, name)) for line in lines] for name in told}
        return Reply(200, write_stream(columns), [line.id for line in lines], lines[0].version, TABLE)

    def _read_table(self, ask: Ask, body: bytes) -> None:
        """In a thread: read the rows of a table, judge and score them."""
        try:
            frame = read_stream(body, self._contract)
        except BatchError as error:
            raise Refusal(422, error=str(error)) from error
        if not 0 < len(frame) <= MAX_TABLE:
            raise Refusal(422, error=f"The table holds {len(frame)} rows; send 1 to {MAX_TABLE}.")
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
                ask.settle(ask, refusal.reply)
                continue
            asks.append(ask)
            rows += len(ask.rows)
            if rows >= GROUP_ROWS:
                break
        self._asks = self._asks[taken:]
        self._waiting -= taken
        if asks:
            try:
                broken = self.score(asks)
            except Refusal as refusal:
                for ask in asks:
                    ask.settle(ask, refusal.reply)
            except Exception:
                logger.exception("a group of requests could not be answered")
                for ask in asks:
                    ask.settle(ask, Reply(500, _encode({"error": "This is a fault of the service; its log has more."})))
            else:
                for ask, refused in broken.items():
                    ask.settle(ask, refused.reply)
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
            ask.settle(ask, error.reply)
        else:
            logger.error("a large request could not be answered", exc_info=error)
            ask.settle(ask, Reply(500, _encode({"error": "This is a fault of the service; its log has more."})))

    def _commit(self, asks: list[Ask]) -> None:
        lines = asks[0].lines if len(asks) == 1 else [line for ask in asks for line in ask.lines]
        self._keep_in_parts(lines, lambda error: self._committed(asks, error))

    def _keep_in_parts(self, lines: list[Prediction], told: Callable[[Exception | None], None], start: int = 0) -> None:
        """Log so many rows at a time, so that others come in between; tell once, when all are kept or one part was not."""
        end = start + PART_ROWS
        if end >= len(lines):
            self._log.put(lines[start:] if start else lines, told)
        else:
            self._log.put(lines[start:end], lambda error: told(error) if error is not None else self._keep_in_parts(lines, told, start=end))

    def _committed(self, asks: list[Ask], error: Exception | None) -> None:
        """Answer: what is logged may leave."""
        if error is not None:
            reply = Refusal(503, error="The log cannot be written, so nothing was answered. Try again.").reply
            for ask in asks:
                ask.settle(ask, reply)
            return
        counts: dict[tuple[str, str], int] = {}
        for ask in asks:
            for line in ask.lines:
                key = (line.version, line.variant)
                counts[key] = counts.get(key, 0) + 1
            ask.settle(ask, reply_of(ask.lines, ask.many))
        for (version, variant), count in counts.items():
            metrics.predictions.labels(version, variant).inc(count)
        if self._routed.shadow is not None:
            self._shadow(self._routed.shadow, [(ask, line) for ask in asks for line in ask.lines])

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

    def _shadow(self, shadow: Release, answered: list[tuple[Ask, Prediction]]) -> None:
        """Score live rows that have been answered once more, in a thread and for the log alone. Nobody waits for it."""
        live = [line for ask, line in answered if ask.variant == "champion"]
        if self._shaded + len(live) > MAX_ROWS:
            metrics.shadows.labels("left_out").inc(len(live))
            return
        self._shaded += len(live)
        done = asyncio.get_running_loop().run_in_executor(self._thread, self._shade, shadow, live)
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
