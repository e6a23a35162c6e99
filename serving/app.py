"""What does the service answer? Predictions, labels, the contract, and sentences where a request is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
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
from ratchet.errors import StoreError
from ratchet.problem import Folder
from ratchet.release import Release
from ratchet.request import explain, request_type
from ratchet.settings import Settings
from ratchet.simulation.sample import draw
from ratchet.store import Store, now
from serving import metrics
from serving.champion import Champion
from serving.log import AWAY, PredictionLog
from serving.openapi import PAGE, document
from serving.spill import Spill

logger = logging.getLogger("ratchet.serving")
MAX_BODY = 4 * 1024 * 1024
MAX_ROWS = 10_000
MAX_DECISIONS = 1000
IDS_A_LINE = 100
THREADS = 32
VARIANTS = frozenset({"champion", "probe", "load"})


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """One label by prediction id."""

    prediction_id: str
    label: int


class Refusal(Exception):
    """A request that is answered with a 4xx or 503, and why."""

    def __init__(self, status: int, **told: Any) -> None:
        super().__init__(told["error"])
        self.status, self.told = status, told


class Service:
    """One problem's predictions over HTTP."""

    def __init__(self, folder: Folder, settings: Settings) -> None:
        self._contract, self._problem = folder.contract, folder.problem
        self._store = Store(settings.store_url, self._problem.name, checked=False)
        self._spill = Spill(settings.spill)
        self._champion = Champion(self._store, settings.releases, settings.spill / f"{self._problem.name}.champion")
        self._lifecycle = metrics.Lifecycle(self._store, self._spill, 86400 * self._problem.watch.label_delay_days)
        self._told = logger.isEnabledFor(logging.INFO) and settings.request_log
        self._record = request_type(self._contract)
        self._records = msgspec.json.Decoder(list[self._record])  # type: ignore[name-defined]
        self._one = msgspec.json.Decoder(self._record)
        self._encode = msgspec.json.Encoder().encode
        self._names = [column.name for column in self._contract.requested]
        self._tasks: list[asyncio.Task[None]] = []

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
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        self._log = PredictionLog(self._store, self._spill)
        await asyncio.to_thread(self._begin)
        self._tasks = [asyncio.create_task(run()) for run in (self._log.write, self._log.mend, self._champion.follow)]
        metrics.workers.set(1)
        try:
            yield
        finally:
            metrics.workers.set(0)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._store.close()

    def _begin(self) -> None:
        """Look at the store; where it is away, answer as before. StoreError where it is of another version."""
        try:
            self._store.check()
            self._champion.refresh()
        except AWAY as error:
            if isinstance(error, StoreError) and not isinstance(error.__cause__, (*AWAY, OSError)):
                raise
            logger.warning("the store is away at the start", extra={"why": str(error)})
            self._log.away = True
            self._champion.recall()

    def _guard(self, route: str, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            begun = time.perf_counter()
            request.state.ids, request.state.version = (), ""
            try:
                response = self._json(await handler(request))
            except Refusal as refusal:
                response = self._json(refusal.told, refusal.status)
            except ClientDisconnect:
                response = Response(status_code=400)
            except AWAY:
                response = self._json({"error": "The store is away, and this needs it. Try again."}, 503)
            except (SQLAlchemyError, OSError):
                logger.exception("neither the store nor the disk took it")
                response = self._json({"error": "The log cannot be written, so nothing was answered. Try again."}, 503)
            except Exception:
                logger.exception("a request could not be answered")
                response = self._json({"error": "This is a fault of the service; its log has more."}, 500)
            self._count(route, request, response.status_code, time.perf_counter() - begun)
            return response

        return answer

    def _count(self, route: str, request: Request, status: int, seconds: float) -> None:
        """One request in the metrics and, with the ids of its predictions, in the service's own log."""
        ids, version = request.state.ids, request.state.version
        metrics.requests.labels(route, str(status), version).inc()
        metrics.latency.labels(route, version).observe(seconds)
        if self._told and route in ("/predict", "/feedback"):
            for start in range(0, max(len(ids), 1), IDS_A_LINE):
                told = {"route": route, "status": status, "version": version, "ms": round(1000 * seconds, 3)}
                logger.info("request", extra=told | {"prediction_ids": list(ids[start : start + IDS_A_LINE])})

    def _json(self, value: Any, status: int = 200) -> Response:
        headers = {"Retry-After": "1"} if status == 503 else None
        return Response(self._encode(value), status, headers, media_type="application/json")

    async def _contract_page(self, _: Request) -> Response:
        return self._json(self._contract.model_dump(mode="json", exclude_defaults=True))

    async def _openapi_page(self, _: Request) -> Response:
        release = self._champion.release
        examples = [item["request"] for item in release.probe[:3]] if release else draw(self._contract, 3, seed=0)
        return self._json(document(self._problem, self._contract, examples))

    # ---- predictions

    async def predict(self, request: Request) -> Any:
        """Decode, score, log, answer."""
        body = await _body(request)
        many = body.lstrip()[:1] == b"["
        try:
            rows = self._records.decode(body) if many else [self._one.decode(body)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(422, **explain(error, self._contract)) from error
        if not 0 < len(rows) <= MAX_ROWS:
            raise Refusal(422, error=f"The array holds {len(rows)} records; send 1 to {MAX_ROWS}.")
        variant = request.headers.get("x-ratchet-variant", "champion")
        if variant not in VARIANTS:
            raise Refusal(422, error=f"X-Ratchet-Variant {variant!r} is not known; there are {', '.join(sorted(VARIANTS))}.")
        release = self._champion.release
        if release is None:
            raise Refusal(503, error=f"No model of {self._problem.name!r} has been released yet. Run `ratchet run {self._problem.name}`.")
        key = request.headers.get("idempotency-key")
        if key is not None and (known := await self._repeated(key, rows)):
            return self._noted(request, known, many)
        entries = self._score(release, rows, self._ids(key, len(rows)), variant)
        try:
            await self._log.append(entries, keyed=key is not None)
        except IntegrityError:
            # The same key was answered between the look and the log.
            if key is None or not (known := await self._repeated(key, rows)):
                raise
            return self._noted(request, known, many)
        metrics.predictions.labels(release.version, variant).inc(len(entries))
        answers = [
            {
                "prediction_id": entry["id"],
                "probability": entry["probability"],
                "label": entry["label"],
                "model_version": entry["version"],
            }
            for entry in entries
        ]
        return self._noted(request, answers, many)

    def _noted(self, request: Request, answers: list[dict[str, Any]], many: bool) -> Any:
        request.state.ids = [answer["prediction_id"] for answer in answers]
        request.state.version = answers[0]["model_version"]
        return answers if many else answers[0]

    async def _repeated(self, key: str, rows: list[Any]) -> list[dict[str, Any]]:
        """What was answered under that key before; empty where it is new. A key belongs to one body."""
        # One more id than there are records tells whether there were more of them before.
        known = await self._log.answered(self._ids(key, len(rows) + 1))
        if known and [answer.pop("features") for answer in known] != [self._encode(row).decode() for row in rows]:
            raise Refusal(422, error=f"Idempotency-Key {key!r} was used before with another body. Use a new key for a new request.")
        return known

    def _ids(self, key: str | None, rows: int) -> list[str]:
        if key is None:
            return [uuid.uuid4().hex for _ in range(rows)]
        name = f"{self._problem.name}:{key}"
        return [hashlib.blake2b(f"{name}:{row}".encode(), digest_size=16).hexdigest() for row in range(rows)]

    def _score(self, release: Release, rows: list[Any], ids: list[str], variant: str) -> list[dict[str, Any]]:
        columns = {name: [getattr(row, name) for row in rows] for name in self._names}
        at = now()
        return [
            {
                "id": identity,
                "problem": self._problem.name,
                "at": at,
                "version": release.version,
                "variant": variant,
                "propensity": 1.0,
                "probability": probability,
                "label": int(probability >= release.threshold),
                "features": self._encode(row).decode(),
            }
            for identity, row, probability in zip(ids, rows, release.scorer.probability(columns).tolist(), strict=True)
        ]

    # ---- labels

    async def feedback(self, request: Request) -> Any:
        """Append labels by prediction id."""
        body = await _body(request)
        kind: Any = list[Label] if body.lstrip()[:1] == b"[" else Label
        try:
            told = msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(422, error=f"{error}; send prediction_id and label, one object or an array.") from error
        labels: list[Label] = told if isinstance(told, list) else [told]
        for row, label in enumerate(labels):
            if label.label not in (0, 1):
                raise Refusal(422, error=f"Label {label.label} of record {row} is not 0 or 1.", row=row)
        request.state.ids = [label.prediction_id for label in labels]
        at = now()
        entries = [{"prediction_id": x.prediction_id, "at": at, "value": x.label, "provenance": "outcome"} for x in labels]
        accepted, unknown = await self._log.ask(self._store.add_labels, entries)
        if unknown and self._spill.files():
            raise Refusal(503, error="Predictions are still on their way from the spill into the log. Send these labels again.")
        if unknown:
            more = f" ({len(unknown)} such ids; the other {len(labels) - len(unknown)} labels were taken)" if len(labels) > 1 else ""
            raise Refusal(404, error=f"No prediction has the id {unknown[0][:64]!r}{more}.")
        return {"accepted": accepted, "known": len(labels) - accepted}

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
        told = await asyncio.to_thread(metrics.exposition, self._lifecycle)
        return Response(told, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _body(request: Request) -> bytes:
    """The body, read no further than the limit."""
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, error=f"Content-Type {kind!r} is not taken; send application/json.")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise Refusal(413, error=f"The body is larger than {MAX_BODY // 1024 // 1024} MB; send fewer records at a time.")
        parts.append(part)
    if not size:
        raise Refusal(422, error="The body is empty; send one JSON object of the contract's features, or an array of them.")
    return b"".join(parts)
