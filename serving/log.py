"""How is every answer kept before it is given? Group commit: one transaction for all that wait, or the spill."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Literal

from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ratchet.errors import StoreError
from ratchet.prediction import Prediction
from ratchet.store import Store
from serving import metrics
from serving.spill import Spill

logger = logging.getLogger("ratchet.serving")
# What says that the store is away, rather than that it does not want these rows.
AWAY = (OperationalError, InterfaceError, PoolTimeout, TimeoutError, StoreError)
PATIENCE_SECONDS = 3.0
LOOK_AGAIN_SECONDS = 1.0
TIDY_SECONDS = 0.02
# So many questions are asked of the store at once; the others wait, and their waiting says nothing about the store.
QUESTIONS = 16

Policy = Literal["spill", "refuse", "unlogged"]
Rows = Sequence[Prediction]
Told = Callable[[Exception | None], None]


class _Waiting:
    """The rows of one request or of a group of them, and whom to tell how it went."""

    __slots__ = ("error", "rows", "since", "told")

    def __init__(self, rows: Rows, told: Told) -> None:
        self.rows, self.told = rows, told
        self.since = time.monotonic()
        self.error: Exception | None = None


class PredictionLog:
    """Rows are handed in and wait; one thread commits everything that waits in one transaction, then they are told.

    The thread takes what waits as soon as it is done with what it had: a busy event loop does not keep the disk waiting.
    While the store is away the rows go to the spill, and from there to the store when it is back; or, as the policy says,
    their requests are refused, or answered unlogged and counted.
    """

    def __init__(self, store: Store, spill: Spill, policy: Policy = "spill") -> None:
        self._store, self._spill, self._policy = store, spill, policy
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._then: list[Callable[[], None]] = []
        # What the thread has taken, and since when it has been asking the store. Whoever changes it, or the queue, holds the lock:
        # a commit that ends and a thread that is given up must not both tell.
        self._taken: list[_Waiting] | None = None
        self._asking: float | None = None
        self._swap = threading.Lock()
        # A store that hangs may keep every other thread: the disk has one of its own.
        self._disk = ThreadPoolExecutor(1, "spill")
        self._questions = asyncio.Semaphore(QUESTIONS)
        self.waiting = 0
        self._stored = 0
        self.away = False

    @property
    def pending(self) -> bool:
        """Whether rows wait for the commit after the one that is under way."""
        return not self._queue.empty()

    def then(self, do: Callable[[], None]) -> None:
        """Do that in the event loop as soon as nothing is pending."""
        if do not in self._then:
            self._then.append(do)
        if self._queue.empty():
            self._turn([])

    def put(self, rows: Rows, told: Told) -> None:
        """Hand rows in; `told` is called with None once they are committed or spilled, else with what went wrong."""
        self.waiting += len(rows)
        metrics.waiting.set(self.waiting)
        self._queue.put(_Waiting(rows, told))

    async def append(self, rows: Rows) -> None:
        """Return once the rows are committed or spilled; raises what the store or the disk raised where they are neither."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(error: Exception | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        self.put(rows, tell)
        await done

    async def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Ask the store in a thread. One of AWAY where it does not answer in time; at once where that is known."""
        async with self._questions:
            if self.away:
                raise StoreError("The store is away.")
            try:
                return await asyncio.wait_for(asyncio.to_thread(function, *arguments), PATIENCE_SECONDS)
            except AWAY as error:
                # A question that takes long says nothing of a store that answers a short one.
                if not isinstance(error, TimeoutError) or not await self._answers():
                    self._lose(error)
                raise

    async def _answers(self) -> bool:
        try:
            await asyncio.wait_for(asyncio.to_thread(self._store.check), PATIENCE_SECONDS / 3)
        except AWAY:
            return False
        return True

    async def answered(self, ids: Sequence[str]) -> list[Prediction]:
        """The rows of a keyed request that the spill or the log holds under those ids, in order."""
        if self.away or self._spill.files():
            loop = asyncio.get_running_loop()
            if known := await loop.run_in_executor(self._disk, self._spill.answered, ids):
                return list(known)
        try:
            return list(await self.ask(self._store.answered, ids))
        except AWAY:
            return []

    def shadow(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep what a shadow would have answered; StoreError while the store is away. Call it in a thread."""
        if self.away:
            raise StoreError("The store is away.")
        self._store.log_shadows(rows)

    async def write(self) -> None:
        """Let the thread commit what waits, until cancelled and nothing waits; a store that hangs is given up."""
        loop = asyncio.get_running_loop()
        thread = self._start(loop)
        try:
            while True:
                await asyncio.sleep(PATIENCE_SECONDS / 10)
                asking = self._asking
                if asking is not None and time.monotonic() - asking > PATIENCE_SECONDS:
                    thread = self._replace(loop) or thread
        except asyncio.CancelledError:
            self._queue.put(None)
            await asyncio.to_thread(thread.join, PATIENCE_SECONDS)
            if thread.is_alive() and (other := self._replace(loop)):
                self._queue.put(None)
                await asyncio.to_thread(other.join, PATIENCE_SECONDS)
            # What the thread told last is done in the loop's next turn.
            await asyncio.sleep(0)
            self._spill.rest()
            raise

    def _start(self, loop: asyncio.AbstractEventLoop) -> threading.Thread:
        self._writer = threading.Thread(target=self._work, args=(loop, self._queue), name="log", daemon=True)
        self._writer.start()
        return self._writer

    def _replace(self, loop: asyncio.AbstractEventLoop) -> threading.Thread | None:
        """Another thread takes over what one has that hangs in the store; None where it came back in that moment.

        Should it come back later, it finds its queue gone, and tells nobody.
        """
        with self._swap:
            taken = self._taken
            if self._asking is None or taken is None:
                return None
            before, self._queue = self._queue, SimpleQueue()
            self._taken = self._asking = None
        self._lose(TimeoutError("it does not answer"))
        for waiting in taken:
            self._queue.put(waiting)
        while not before.empty():
            self._queue.put(before.get_nowait())
        before.put(None)
        return self._start(loop)

    def _work(self, loop: asyncio.AbstractEventLoop, queue: SimpleQueue[_Waiting | None]) -> None:
        """The thread: take all that waits, commit it, again and again until a None."""
        done: list[_Waiting] = []
        ended = False
        while not ended:
            if done and queue.empty():
                loop.call_soon_threadsafe(self._turn, done)
                done = []
            taken: list[_Waiting] = []
            while not taken or not queue.empty():
                waiting = queue.get()
                if waiting is None:
                    ended = True
                    break
                taken.append(waiting)
            with self._swap:
                # It is given up in the midst of a commit only, so it holds nothing here.
                if queue is not self._queue:
                    return
                self._taken = taken
            if done or self._then:
                loop.call_soon_threadsafe(self._turn, done)
            done = []
            if taken:
                self._commit(taken)
                with self._swap:
                    if queue is not self._queue:
                        return
                    self._taken = None
                done = taken
        if done:
            loop.call_soon_threadsafe(self._turn, done)

    def _turn(self, done: list[_Waiting]) -> None:
        """In the event loop: tell those whose rows are kept, and do what was to be done once nothing is pending."""
        moment = time.monotonic()
        for waiting in done:
            self.waiting -= len(waiting.rows)
            metrics.lag.observe(moment - waiting.since)
            try:
                waiting.told(waiting.error)
            except Exception:
                logger.exception("a request could not be told")
        metrics.waiting.set(self.waiting)
        if self._then and self._queue.empty():
            then, self._then = self._then, []
            for do in then:
                asyncio.get_running_loop().call_soon(do)

    async def mend(self) -> None:
        """See whether a store that was away is back, and replay what was spilled meanwhile, by this process or a lost one."""
        while True:
            if self.away or self._spill.files():
                try:
                    await asyncio.to_thread(self._store.check)
                    if self.away:
                        self.away = False
                        logger.info("the store is back")
                    self._spill.rest()
                    new, rejected = await asyncio.to_thread(self._spill.replay, self._store)
                    metrics.logged.labels("rejected").inc(rejected)
                    if new:
                        metrics.logged.labels("replayed").inc(new)
                        logger.info("rows replayed from the spill", extra={"rows": new})
                except AWAY as error:
                    self._lose(error)
                except Exception:
                    logger.exception("the spill could not be replayed; it is kept")
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def tidy(self) -> None:
        """Keep the store's log of changes short, so that no commit has to."""
        written = 0
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            if not self.away and self._stored != written:
                written = self._stored
                try:
                    await asyncio.to_thread(self._store.checkpoint)
                except AWAY as error:
                    logger.warning("the store's log of changes could not be written back", extra={"why": str(error)})

    def _lose(self, error: BaseException) -> None:
        if not self.away:
            self.away = True
            said = str(getattr(error, "orig", None) or error).splitlines()
            logger.warning("the store is away: answers go to the spill", extra={"why": said[0] if said else type(error).__name__})

    # ---- in the thread

    def _commit(self, taken: list[_Waiting]) -> None:
        try:
            self._keep(taken)
        except Exception as error:
            # Whatever went wrong, nobody is left waiting, and the next commit goes on.
            logger.exception("rows could not be kept")
            for waiting in taken:
                waiting.error = error

    def _keep(self, taken: list[_Waiting]) -> None:
        rows = taken[0].rows if len(taken) == 1 else [row for waiting in taken for row in waiting.rows]
        if not self.away:
            self._asking = time.monotonic()
            try:
                self._store.log(rows)
            except IntegrityError as error:
                if len(taken) == 1:
                    taken[0].error = error
                    return
                self._asking = None
                # One request repeats what is logged already; the others must not pay for it.
                for waiting in taken:
                    self._keep([waiting])
                return
            except AWAY as error:
                if threading.current_thread() is not self._writer:
                    return
                self._lose(error)
            else:
                metrics.stored.inc(len(rows))
                self._stored += len(rows)
                return
            finally:
                if threading.current_thread() is self._writer:
                    self._asking = None
        self._put_aside(taken, rows)

    def _put_aside(self, taken: list[_Waiting], rows: Rows) -> None:
        """Spill the rows. Whether the store took them before it went is not known: the replay passes over what it has."""
        if self._policy != "spill":
            metrics.logged.labels({"refuse": "refused"}.get(self._policy, self._policy)).inc(len(rows))
            for waiting in taken if self._policy == "refuse" else []:
                waiting.error = StoreError("The store is away, and nothing is answered that it does not keep.")
            return
        try:
            self._spill.append(rows)
        except OSError as error:
            logger.error("neither the store nor the spill takes an answer", extra={"why": str(error)})
            for waiting in taken:
                waiting.error = error
        else:
            metrics.logged.labels("spilled").inc(len(rows))
