"""How is a plain prediction request answered without the layers in between? Where the bytes arrive.

This is a shortcut with undocumented hooks: it takes the place of uvicorn's class for a connection. A request that is
whole, unkeyed and without surprises goes from the read buffer to the batcher; everything else takes the road through
uvicorn, BentoML and Starlette as if this file were not there, and gets the same answers. RATCHET_FAST_ROAD=false
leaves it out. It costs what the layers would have given: no middleware and no spans for these requests.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from serving import metrics
from serving.batching import Ask, Batcher, Reply

# A client gets this long to send its headers.
HEAD_SECONDS = 15.0
SWEEP_SECONDS = 1.0
KNOWN_HEADS = 1024
LONGEST_HEAD = 4096
HOLD_BYTES = 64 * 1024
# Headers that change nothing about the answer. One that is not here takes the long road.
HARMLESS = frozenset(
    b"host user-agent accept accept-encoding accept-language origin referer cache-control pragma x-request-id traceparent tracestate".split()
)


# No head may hold these, not even within a line.
CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Head(NamedTuple):
    """What a request's head says: how long the body is, and in which variant to answer. A length of -1: take the long road."""

    length: int
    variant: str


LONG_ROAD = Head(-1, "")


def read_head(head: bytes, token: str | None) -> Head:
    """What a head says that ends before the empty line; LONG_ROAD where anything in it is out of the ordinary.

    >>> read_head(b"POST /predict HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 17", None)
    Head(length=17, variant='champion')
    >>> read_head(b"POST /predict HTTP/1.1\\r\\nHost: a\\r\\nTransfer-Encoding: chunked", None) == LONG_ROAD
    True
    """
    first, *lines = head.split(b"\r\n")
    if first != b"POST /predict HTTP/1.1" or CONTROLS.search(b"".join(lines)):
        return LONG_ROAD
    length, variant, authorized, seen = -1, "champion", token is None, set[bytes]()
    for line in lines:
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if not colon or name in seen or not value.isascii():
            return LONG_ROAD
        seen.add(name)
        if name == b"content-length" and value.isdigit() and len(value) < 9:
            length = int(value)
        elif name == b"authorization" and token is not None:
            authorized = hmac.compare_digest(value, b"Bearer " + token.encode())
        elif name == b"x-ratchet-variant" and value in (b"champion", b"probe", b"load"):
            variant = value.decode()
        elif name == b"content-type":
            if value.partition(b";")[0].strip().lower() != b"application/json":
                return LONG_ROAD
        elif name == b"connection":
            if value.lower() != b"keep-alive":
                return LONG_ROAD
        elif name not in HARMLESS:
            return LONG_ROAD
    return Head(length, variant) if length > 0 and authorized and b"host" in seen else LONG_ROAD


class Protocol(HttpToolsProtocol):
    """A connection. At most one of its requests is with the batcher; what arrives meanwhile is held."""

    batcher: ClassVar[Batcher]
    count: ClassVar[Callable[[str, Reply, float], None]]
    token: ClassVar[str | None] = None
    heads: ClassVar[dict[bytes, Head]] = {}
    sweeping: ClassVar[bool] = False
    # Heads of answers by status, good for as long as the server's default headers are these.
    defaults: ClassVar[list[tuple[bytes, bytes]] | None] = None
    made: ClassVar[dict[int, bytes]] = {}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._asked: Ask | None = None
        self._held = b""
        self._ending = False
        # Whether a message has begun that has not ended, and since when its head is being read.
        self._within = False
        self._reading: float | None = None
        self._idle: float | None = self.loop.time()
        if not Protocol.sweeping:
            Protocol.sweeping = True
            self.loop.call_later(SWEEP_SECONDS, _sweep, self.loop, self.connections)

    # ---- what arrives

    def data_received(self, data: bytes) -> None:
        """Bytes of the client: the shortcut where they are one plain request, else the long road."""
        if self._asked is not None or self._held:
            # What came before goes first.
            self._held += data
            if len(self._held) > HOLD_BYTES:
                self.flow.pause_reading()
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        if self._within or (self.cycle is not None and not self.cycle.response_complete) or not self._shortcut(data):
            super().data_received(data)

    def _shortcut(self, data: bytes) -> bool:
        end = data.find(b"\r\n\r\n", 0, LONGEST_HEAD)
        if end < 0:
            return False
        head = data[:end]
        known = self.heads.get(head)
        if known is None:
            known = read_head(head, self.token)
            if known is not LONG_ROAD:
                if len(self.heads) >= KNOWN_HEADS:
                    self.heads.clear()
                self.heads[head] = known
        # A client that does not read what it is answered is not asked for more.
        if len(data) != end + 4 + known.length or self.flow.write_paused or self._ending:
            return False
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._idle = None
        self._asked = Ask(data[end + 4 :], known.variant, self._settle)
        self.batcher.take(self._asked)
        return True

    def on_message_begin(self) -> None:
        """The long road: a message begins."""
        self._within, self._reading, self._idle = True, self.loop.time(), None
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The long road: its head is whole."""
        self._reading = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The long road: the message is whole."""
        self._within = False
        super().on_message_complete()

    # ---- what goes back

    def _settle(self, ask: Ask, reply: Reply) -> None:
        if ask is not self._asked:
            return
        self._asked = None
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.transport.write(b"%b%d\r\n\r\n%b" % (_head(reply.status, self.server_state), len(reply.body), reply.body))
        Protocol.count("/predict", reply, ask.begun)
        if self._ending:
            self.transport.close()
            return
        self._idle = self.loop.time()
        if self._held:
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Take what was held, whatever arrived until now among it."""
        data, self._held = self._held, b""
        if self.parser is not None and not self.transport.is_closing():
            self.flow.resume_reading()
            self._take(data)

    def shutdown(self) -> None:
        """The service ends: a request that is with the batcher is answered first."""
        self._ending = True
        if self._asked is None:
            super().shutdown()

    def overdue(self, moment: float) -> bool:
        """Whether this connection is to be closed: idle for too long, or never done with a request's head."""
        if self._reading is not None:
            return moment - self._reading > HEAD_SECONDS
        return self._idle is not None and moment - self._idle > self.timeout_keep_alive


_STATIC = b"content-type: application/json\r\ncontent-length: "
_RETRY = b"retry-after: 1\r\n"


def _head(status: int, state: ServerState) -> bytes:
    """A head up to the number after content-length. The default headers, with the date, are made anew every second."""
    if Protocol.defaults is not state.default_headers:
        Protocol.defaults, Protocol.made = state.default_headers, {}
    made = Protocol.made.get(status)
    if made is None:
        told = b"".join([b"%b: %b\r\n" % header for header in state.default_headers])
        made = Protocol.made[status] = b"%b%b%b%b" % (STATUS_LINE[status], told, _RETRY if status == 503 else b"", _STATIC)
    return made


def _sweep(loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
    """Close what is overdue, once a second: a timer for each request would cost more than the request."""
    moment = loop.time()
    for connection in [one for one in connections if isinstance(one, Protocol) and one.overdue(moment)]:
        if connection._reading is not None:
            metrics.requests.labels("none", "408", "").inc()
        connection.transport.close()
    loop.call_later(SWEEP_SECONDS, _sweep, loop, connections)


def install() -> None:
    """Let uvicorn use this class in this process, whatever server starts it."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "serving.protocol:Protocol"
