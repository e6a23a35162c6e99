"""What does the service answer? Predictions, labels, the contract, and sentences where a request is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from ratchet.account import overview, trace
from ratchet.database import now
from ratchet.errors import StoreError
from ratchet.problem import Folder
from ratchet.settings import Settings
from ratchet.simulation.sample import draw
from ratchet.store import Store
from serving import metrics
from serving.batching import MAX_TABLE_BODY, TABLE, VARIANTS, Ask, Batcher, Refusal, Reply, reply_of
from serving.books import Books
from serving.labels import Labels
from serving.log import AWAY, QUESTIONS, PredictionLog
from serving.openapi import PAGE, document
from serving.protocol import Protocol
from serving.routed import Routed
from serving.spill import Spill

logger = logging.getLogger("ratchet.serving")
MAX_BODY = 4 * 1024 * 1024
JSON = "application/json"
MAX_DECISIONS = 1000
ID_LENGTH = 32
BODY_SECONDS = 20.0


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """One label by prediction id."""

    prediction_id: str
    label: int


class Service:
    """One problem's predictions over HTTP."""

    def __init__(self, folder: Folder, settings: Settings) -> None:
        self._folder, self._contract, self._problem = folder, folder.contract, folder.problem
        self._settings = settings
        self._store = Store(settings.store_url, self._problem.name, checked=False, alone=settings.workers == 1)
        self._spill = Spill(settings.spill)
        self._routed = Routed(self._store, settings.releases, settings.spill / f"{self._problem.name}.champion")
        self._lifecycle = metrics.Lifecycle(self._store, self._spill, self._problem.watch)
        self._books = Books(settings.request_log)
        self._token = settings.token.get_secret_value() if settings.token else None
        self._encode = msgspec.json.Encoder().encode
        self._tasks: list[asyncio.Task[None]] = []
        # Requests that go the long way and are not answered yet.
        self._inside = 0

    @property
    def ready(self) -> bool:
        """Whether the log is written and the route followed."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def app(self) -> Starlette:
        """The routes, and what runs beside them."""
        return Starlette(
            lifespan=self._lifespan,
            routes=[
                Route("/predict", self._guard("/predict", self.predict), methods=["POST"]),
                Route("/feedback", self._guard("/feedback", self.feedback), methods=["POST"]),
                Route("/status", self._guard("/status", self.status)),
                Route("/decisions", self._guard("/decisions", self.decisions)),
                Route("/predictions/{identity}", self._guard("/predictions/{identity}", self.prediction)),
                Route("/metrics", self._metrics_page),
                Route("/contract", self._contract_page),
                Route("/openapi.json", self._openapi_page),
                Route("/docs", lambda _: HTMLResponse(PAGE)),
                Route("/", lambda _: RedirectResponse("docs")),
            ],
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        # A store that hangs keeps a thread for each question it was asked before that was known.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * QUESTIONS))
        self._log = PredictionLog(self._store, self._spill, self._settings.log_policy)
        self._batcher = Batcher(self._folder, self._routed, self._log, self._settings.max_waiting)
        self._labels = Labels(self._store, self._log, self._settings.max_waiting)
        if self._settings.fast_road:
            Protocol.batcher, Protocol.count, Protocol.token = self._batcher, self._books.count, self._token
        await asyncio.to_thread(self._begin)
        self._tasks = [asyncio.create_task(run()) for run in (self._log.write, self._log.mend, self._log.tidy, self._routed.follow)]
        metrics.workers.set(1)
        # What is there now stays: the collector need not look through the libraries again and again while requests wait.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        try:
            yield
        finally:
            metrics.workers.set(0)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._books.close()
            self._store.close()

    def _begin(self) -> None:
        """Look at the store; where it is away, answer as before. StoreError where it is of another version."""
        try:
            self._store.check()
            self._routed.refresh()
        except AWAY as error:
            if isinstance(error, StoreError) and not isinstance(error.__cause__, (*AWAY, OSError)):
                raise
            logger.warning("the store is away at the start", extra={"why": str(error)})
            self._log.away = True
            self._routed.recall()

    def _guard(self, route: str, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            begun = time.perf_counter()
            self._inside += 1
            try:
                if self._inside > self._settings.max_waiting:
                    metrics.shed.inc()
                    raise Refusal(503, error="Too much waits already; the service takes no more. Try again.")
                if self._token is not None and not _shows(request, self._token):
                    raise Refusal(401, error="This service asks for a token: send the header `Authorization: Bearer TOKEN`.")
                given = await handler(request)
                reply = given if isinstance(given, Reply) else Reply(200, self._encode(given))
            except Refusal as refusal:
                reply = refusal.reply
            except ClientDisconnect:
                reply = Reply(400, b"")
            except AWAY:
                reply = Refusal(503, error="The store is away, and this needs it. Try again.").reply
            except (SQLAlchemyError, OSError):
                logger.exception("neither the store nor the disk took it")
                reply = Refusal(503, error="The log cannot be written, so nothing was answered. Try again.").reply
            except Exception:
                logger.exception("a request could not be answered")
                reply = Refusal(500, error="This is a fault of the service; its log has more.").reply
            finally:
                self._inside -= 1
            self._books.count(route, reply, begun)
            return Response(reply.body, reply.status, _HEADERS.get(reply.status), media_type=reply.kind)

        return answer

    def _json(self, value: Any) -> Response:
        return Response(self._encode(value), media_type="application/json")

    async def _contract_page(self, _: Request) -> Response:
        return self._json(self._contract.model_dump(mode="json", exclude_defaults=True))

    async def _openapi_page(self, _: Request) -> Response:
        release = self._routed.champion
        # The page is for everybody; rows of the data are for those who may ask.
        shown = release is not None and self._token is None
        examples = [item["request"] for item in release.probe[:3]] if release and shown else draw(self._contract, 3, seed=0)
        return self._json(document(self._problem, self._contract, examples))

    # ---- predictions

    async def predict(self, request: Request) -> Reply:
        """Decode, score, log, answer."""
        table = _kind(request) == TABLE
        body = await _body(request, (JSON, TABLE), MAX_TABLE_BODY if table else MAX_BODY)
        variant = request.headers.get("x-ratchet-variant", "champion")
        if variant not in VARIANTS:
            raise Refusal(422, error=f"X-Ratchet-Variant {variant!r} is not known; there are {', '.join(sorted(VARIANTS))}.")
        key = request.headers.get("idempotency-key")
        if table:
            if key is not None:
                raise Refusal(422, error="Idempotency-Key is for JSON; a table that is sent again is answered and logged again.")
            return await self._batcher.table(body, variant)
        return await (self._batcher.reply(body, variant) if key is None else self._keyed(key, body, variant))

    async def _keyed(self, key: str, body: bytes, variant: str) -> Reply:
        """Answer once under a key, however often it is asked."""
        ask = Ask(body, variant, lambda *_: None)
        self._batcher.admit(ask, len(body))
        try:
            return await self._once(key, ask)
        finally:
            self._batcher.settle(ask, Reply(200, b""))

    async def _once(self, key: str, ask: Ask) -> Reply:
        size = len(ask.body)
        await self._batcher.quietly(size, self._batcher.decode, ask)
        # One more id than there are records tells whether there were more of them before.
        ids = self._ids(key, len(ask.rows) + 1)
        if known := await self._repeated(key, ids, ask):
            return known
        await self._batcher.quietly(size, self._batcher.score_one, ask, ids[:-1])
        for line in ask.lines:
            line.keyed = True
        try:
            await self._log.append(ask.lines)
        except IntegrityError:
            # The same key was answered between the look and the log.
            if not (known := await self._repeated(key, ids, ask)):
                raise
            return known
        self._batcher.logged([ask])
        return reply_of(ask.lines, ask.many)

    async def _repeated(self, key: str, ids: list[str], ask: Ask) -> Reply | None:
        """What was answered under that key before; None where it is new. A key belongs to one body."""
        known = await self._log.answered(ids)
        if not known:
            return None
        if [line.features for line in known] != [self._encode(row).decode() for row in ask.rows]:
            raise Refusal(422, error=f"Idempotency-Key {key!r} was used before with another body. Use a new key for a new request.")
        return reply_of(known, ask.many)

    def _ids(self, key: str, rows: int) -> list[str]:
        name = f"{self._problem.name}:{key}"
        return [hashlib.blake2b(f"{name}:{row}".encode(), digest_size=16).hexdigest() for row in range(rows)]

    # ---- labels

    async def feedback(self, request: Request) -> Reply:
        """Append labels by prediction id."""
        body = await _body(request, (JSON,), MAX_BODY)
        kind: Any = list[Label] if body.lstrip()[:1] == b"[" else Label
        try:
            read = msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(422, error=f"{error}; send prediction_id and label, one object or an array.") from error
        labels: list[Label] = read if isinstance(read, list) else [read]
        for row, label in enumerate(labels):
            if label.label not in (0, 1):
                raise Refusal(422, error=f"Label {label.label} of record {row} is not 0 or 1.", row=row)
        if never := {row: label.prediction_id for row, label in enumerate(labels) if _is_no_id(label.prediction_id)}:
            await self._log.ask(self._store.add_strays, list(never.values()))
            row, identity = next(iter(never.items()))
            raise Refusal(404, error=f"No prediction has the id {identity[:64]!r}; none of these labels was taken.", row=row)
        at = now()
        entries = [{"prediction_id": x.prediction_id, "at": at, "value": x.label, "provenance": "outcome"} for x in labels]
        told = await self._labels.add(entries)
        unknown = [label.prediction_id for label, new in zip(labels, told, strict=True) if new is None]
        if unknown and self._spill.files():
            raise Refusal(503, error="Predictions are still on their way from the spill into the log. Send these labels again.")
        if unknown:
            more = f" ({len(unknown)} such ids; the other {len(labels) - len(unknown)} labels were taken)" if len(labels) > 1 else ""
            raise Refusal(404, error=f"No prediction has the id {unknown[0][:64]!r}{more}.")
        body = self._encode({"accepted": told.count(True), "known": told.count(False)})
        return Reply(200, body, [label.prediction_id for label in labels])

    # ---- what was decided, and what became of a prediction

    async def status(self, _: Request) -> Any:
        """Who answers since when, how fresh the log and the labels are, the last decisions."""
        return await self._log.ask(lambda: overview(self._store, self._spill.waiting()))

    async def decisions(self, request: Request) -> Any:
        """The newest decisions of the ledger, oldest of them first."""
        actions = [action for action in request.query_params.get("action", "").split(",") if action]
        newest = request.query_params.get("newest", "100")
        if not newest.isdigit() or not 0 < int(newest) <= MAX_DECISIONS:
            raise Refusal(422, error=f"newest is {newest[:20]!r}; it must be a number from 1 to {MAX_DECISIONS}.")
        found = await self._log.ask(lambda: self._store.decisions(*actions, newest=int(newest)))
        return [entry.__dict__ for entry in found]

    async def prediction(self, request: Request) -> Any:
        """Follow one prediction: its row, its labels, the windows that held it, what was decided on them."""
        identity = request.path_params["identity"]
        found = await self._log.ask(trace, self._store, identity)
        if found is None:
            raise Refusal(404, error=f"No prediction has the id {identity[:64]!r}.")
        return found

    async def _metrics_page(self, _: Request) -> Response:
        self._lifecycle.away = self._log.away
        self._books.close()
        told = await asyncio.to_thread(metrics.exposition, self._lifecycle)
        return Response(told, media_type="text/plain; version=0.0.4; charset=utf-8")


_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}


def _is_no_id(identity: str) -> bool:
    """Whether no prediction can have such an id."""
    return len(identity) > ID_LENGTH or "\0" in identity


def _shows(request: Request, token: str) -> bool:
    """Whether a request comes with the token."""
    return hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {token}".encode())


def _kind(request: Request) -> str:
    return request.headers.get("content-type", JSON).split(";")[0].strip().lower()


async def _body(request: Request, kinds: tuple[str, ...], most: int) -> bytes:
    """The body, of one of those kinds, read no further than the limit."""
    if (kind := _kind(request)) not in kinds:
        raise Refusal(415, error=f"Content-Type {kind!r} is not taken; send {' or '.join(kinds)}.")
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise Refusal(413, error=f"The body is larger than {most // 1024 // 1024} MB; send fewer records at a time.")
                parts.append(part)
    except TimeoutError:
        raise Refusal(408, error=f"The body did not come within {BODY_SECONDS:g} s.") from None
    if not size:
        raise Refusal(422, error="The body is empty; send one JSON object of the contract's features, or an array of them.")
    return b"".join(parts)
