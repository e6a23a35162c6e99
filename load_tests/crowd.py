"""What do thousands of connections see? A client of plain sockets: all of them asking at once, or at a steady rate.

Locust's users cost a greenlet each, and at ten thousand of them its own event loop is what is measured.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ratchet.errors import StackError

CONNECT_AT_ONCE = 200
CHUNK = 65536


@dataclass
class Outcome:
    """What n requests met with: milliseconds of those that were answered with 200, and how many were not."""

    asked: int
    milliseconds: np.ndarray
    failed: int
    most_in_flight: int
    seconds: float
    bodies: list[bytes] = field(default_factory=list)

    @property
    def slowest(self) -> float:
        """Of the answered ones; infinite where one was never answered."""
        return float(self.milliseconds.max()) if self.failed == 0 and self.milliseconds.size else float("inf")


def request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Crowd:
    """So many connections to one address, kept open. StackError where they cannot be opened."""

    def __init__(self, host: str, port: int, connections: int, within: float = 30.0) -> None:
        self.sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        deadline = time.monotonic() + within
        try:
            while len(self.sockets) < connections:
                # A queue of connections that are not accepted yet is not endless.
                for _ in range(min(CONNECT_AT_ONCE, connections - len(self.sockets))):
                    made = socket.create_connection((host, port), timeout=within)
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    made.setblocking(False)
                    self.sockets[made.fileno()] = made
                    self._poll.register(made.fileno(), select.EPOLLIN)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"after {within:g} s")
        except OSError as error:
            opened = len(self.sockets)
            self.close()
            raise StackError(f"{host}:{port} took {opened} of {connections} connections: {error}. `ulimit -n` may be too low.") from error

    def close(self) -> None:
        """Let go of every connection."""
        for opened in self.sockets.values():
            opened.close()
        self._poll.close()

    def burst(self, requests: Sequence[bytes], within: float = 60.0) -> Outcome:
        """Every connection asks once, as quickly as one can send; each is timed from its own sending."""
        begun = time.perf_counter()
        asked: dict[int, float] = {}
        answers = _Answers()
        for place, (number, opened) in enumerate(self.sockets.items()):
            asked[number] = time.perf_counter()
            opened.send(requests[place % len(requests)])
            if place % 64 == 63:
                self._read(asked, answers, 0.0)
        while asked and time.perf_counter() - begun < within:
            self._read(asked, answers, 0.5)
        return answers.outcome(len(self.sockets), len(asked), time.perf_counter() - begun)

    def closed(self, requests: Sequence[bytes], within: float = 60.0) -> Outcome:
        """Ask each request once: every connection asks the next one as soon as it is answered."""
        idle = list(self.sockets)
        asked: dict[int, float] = {}
        answers = _Answers(idle)
        begun = last = time.perf_counter()
        sent = 0
        while (sent < len(requests) or asked) and time.perf_counter() - last < within:
            while idle and sent < len(requests):
                number = idle.pop()
                asked[number] = last = time.perf_counter()
                self.sockets[number].send(requests[sent])
                sent += 1
            self._read(asked, answers, 0.1)
        return answers.outcome(len(requests), len(asked) + len(requests) - sent, time.perf_counter() - begun)

    def steady(self, requests: Sequence[bytes], rate: float, seconds: float, within: float = 10.0) -> Outcome:
        """Ask so often a second, each time on the connection that has been idle longest.

        A request is timed from the moment at which it was due: one that had to wait for its turn has waited.
        """
        idle = list(self.sockets)[::-1]
        asked: dict[int, float] = {}
        answers = _Answers(idle)
        begun, sent = time.perf_counter(), 0
        while (now := time.perf_counter()) - begun < seconds:
            while sent < (now - begun) * rate and idle:
                number = idle.pop()
                asked[number] = begun + sent / rate
                self.sockets[number].send(requests[sent % len(requests)])
                sent += 1
            self._read(asked, answers, max(0.0, begun + sent / rate - time.perf_counter()))
        last = time.perf_counter()
        while asked and time.perf_counter() - last < within:
            self._read(asked, answers, 0.1)
        return answers.outcome(sent, len(asked), time.perf_counter() - begun)

    def _read(self, asked: dict[int, float], answers: _Answers, wait: float) -> None:
        answers.most = max(answers.most, len(asked))
        for number, _ in self._poll.poll(wait, 4096):
            try:
                data = self.sockets[number].recv(CHUNK)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            moment = time.perf_counter()
            if not data:
                self._poll.unregister(number)
            answers.take(number, data, asked, moment)


class _Answers:
    """What has come back. `idle` gets the numbers of connections that are free again, the longest idle last."""

    def __init__(self, idle: list[int] | None = None) -> None:
        self.idle = idle
        self.most = 0
        self._times: list[float] = []
        self._bodies: list[bytes] = []
        self._failed = 0
        self._parts: dict[int, bytes] = {}

    def take(self, number: int, data: bytes, asked: dict[int, float], moment: float) -> None:
        if not data:
            self._failed += asked.pop(number, None) is not None
            return
        data = self._parts.pop(number, b"") + data
        head, end, body = data.partition(b"\r\n\r\n")
        place = head.lower().find(b"content-length: ")
        if not end or place < 0 or len(body) < int(head[place + 16 :].split(b"\r\n", 1)[0]):
            self._parts[number] = data
            return
        since = asked.pop(number, None)
        if since is None or not head.startswith(b"HTTP/1.1 200 "):
            self._failed += 1
        else:
            self._times.append(1000 * (moment - since))
            self._bodies.append(body)
        if self.idle is not None:
            self.idle.insert(0, number)

    def outcome(self, asked: int, unanswered: int, seconds: float) -> Outcome:
        return Outcome(asked, np.array(self._times), self._failed + unanswered, self.most, seconds, self._bodies)
