"""Open-loop load over HTTP/2, cheap enough to offer a server several times what it can answer.

A gRPC client in Python spends as much CPU on a call as the server does. This one writes prepared frames to plain
sockets and reads no more of an answer than its status. It keeps the rules that bear on overload: the server's limit
of concurrent streams, flow control, grpc-timeout, and a reset for a call whose deadline has passed.
"""

from __future__ import annotations

import itertools
import math
import selectors
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
TABLE_SIZE, MOST_STREAMS, WINDOW = 1, 3, 4  # settings
LARGEST_WINDOW = 2**31 - 1
CANCEL = struct.pack(">I", 8)
STATUS = b"grpc-status"
RETRY_INFO = b"grpc-status-details-bin"
OK, DEADLINE_EXCEEDED = 0, 4
TICK = 0.001  # seconds


@dataclass
class Outcome:
    """What came of the calls that were due in the counted time.

    answers  within the deadline that came in the counted time, whenever they were due: what a queue takes in while it
             grows is not an answer yet
    seconds  of the answers within the deadline, each from when its call was due
    codes    of what was refused, by gRPC status code
    advised  refusals that came with details
    reset    calls that HTTP/2 turned away before gRPC saw them; gRPC's clients send those again by themselves
    late     calls whose deadline passed without an answer
    unsent   those of them that never left the client: the server's limit of streams held them back
    """

    offered: int = 0
    answers: int = 0
    seconds: list[float] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    advised: int = 0
    reset: int = 0
    late: int = 0
    unsent: int = 0

    def add(self, due: float, now: float, deadline: float, code: int | None, advised: bool) -> None:
        """code  None of a call that was reset"""
        if code is None:
            self.reset += 1
        elif code == OK and now - due <= deadline:
            self.seconds.append(now - due)
        elif code in (OK, DEADLINE_EXCEEDED):
            self.late += 1
        else:
            self.codes[code] += 1
            self.advised += advised


@dataclass(slots=True)
class Sent:
    """A call in flight.  counts  in the outcome"""

    due: float
    counts: bool


class Connection:
    """One connection, and the calls on it."""

    def __init__(self, port: int, path: str, deadline: float) -> None:
        self.deadline = deadline
        self.counted = (math.inf, math.inf)  # from when and until when, on the clock of time.monotonic
        self.outcome = Outcome()
        self.in_flight: dict[int, Sent] = {}
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._headers = _headers(path, port)
        self._streams = itertools.count(1, 2)
        self._waiting: deque[tuple[float, bool, bytes]] = deque()
        self._room = 65_535  # bytes that the server takes on the connection
        self._most = 2**31
        settings = struct.pack(">HIHI", TABLE_SIZE, 0, WINDOW, LARGEST_WINDOW)
        self._out = bytearray(PREFACE + _frame(SETTINGS, 0, 0, settings))
        self._out += _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65_535))
        self._in = bytearray()

    @property
    def idle(self) -> bool:
        return not (self.in_flight or self._waiting)

    def call(self, due: float, body: bytes, counts: bool) -> None:
        """body  a framed message"""
        self.outcome.offered += counts
        self._waiting.append((due, counts, body))

    def write(self, now: float) -> None:
        """Start what may be started, and send what the socket takes."""
        while self._waiting:
            due, counts, body = self._waiting[0]
            left = self.deadline - (now - due)
            if left <= 0:
                self._waiting.popleft()
                self.outcome.late += counts
                self.outcome.unsent += counts
                continue
            if len(self.in_flight) >= self._most or len(body) > self._room:
                break
            self._waiting.popleft()
            stream = next(self._streams)
            block = self._headers + _literal(b"grpc-timeout", b"%du" % (left * 1e6))
            self._out += _frame(HEADERS, END_HEADERS, stream, block) + _frame(DATA, END_STREAM, stream, body)
            self._room -= len(body)
            self.in_flight[stream] = Sent(due, counts)
        if self._out:
            try:
                del self._out[: self.socket.send(self._out)]
            except BlockingIOError:
                return

    def expire(self, now: float) -> None:
        """Give up the calls whose deadline has passed, as a client does."""
        while self.in_flight:
            stream, sent = next(iter(self.in_flight.items()))  # the oldest first
            if now - sent.due <= self.deadline:
                return
            del self.in_flight[stream]
            self._out += _frame(RESET, 0, stream, CANCEL)
            self.outcome.late += sent.counts

    def read(self) -> None:
        """Raises  ConnectionError: the server has closed the connection"""
        try:
            got = self.socket.recv(2**20)
        except BlockingIOError:
            return
        if not got:
            raise ConnectionError("the server has closed the connection")
        self._in += got
        now, start, data = time.monotonic(), 0, self._in
        while len(data) - start >= 9:
            length = int.from_bytes(data[start : start + 3], "big")
            if len(data) - start < 9 + length:
                break
            kind, flags = data[start + 3], data[start + 4]
            stream = int.from_bytes(data[start + 5 : start + 9], "big")
            self._frame(kind, flags, stream, bytes(data[start + 9 : start + 9 + length]), now)
            start += 9 + length
        del data[:start]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        if kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == MOST_STREAMS:
                    self._most = value
            self._out += _frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._out += _frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and not stream:
            self._room += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            raise ConnectionError(f"the server ended the connection: {payload[8:]!r}")
        elif kind == DATA and payload:
            window = struct.pack(">I", len(payload))
            self._out += _frame(WINDOW_UPDATE, 0, 0, window)
        elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
            self._end(stream, _status(payload) if kind == HEADERS else None, RETRY_INFO in payload, now)

    def _end(self, stream: int, code: int | None, advised: bool, now: float) -> None:
        sent = self.in_flight.pop(stream, None)
        if sent is None:
            return
        first, end = self.counted
        self.outcome.answers += code == OK and now - sent.due <= self.deadline and first <= now < end
        if sent.counts:
            self.outcome.add(sent.due, now, self.deadline, code, advised)


def offer(
    port: int,
    path: str,
    bodies: Sequence[bytes],
    rate: float,
    seconds: float,
    deadline: float,
    connections: int,
    warm_up: float = 0.5,
) -> Outcome:
    """Calls at `rate` a second, whatever becomes of them, over several connections in turn.

    bodies   serialised requests, sent in turn
    seconds  that count;  warm_up  seconds before them
    Raises  ConnectionError: the server ended a connection
    """
    framed = itertools.cycle(struct.pack(">BI", 0, len(body)) + body for body in bodies)
    opened = [Connection(port, path, deadline) for _ in range(connections)]
    try:
        with selectors.DefaultSelector() as selector:
            for connection in opened:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            _drive(selector, opened, _due(rate, warm_up + seconds), framed, warm_up, seconds)
    finally:
        for connection in opened:
            connection.socket.close()
    whole = Outcome()
    for outcome in (connection.outcome for connection in opened):
        whole.offered += outcome.offered
        whole.answers += outcome.answers
        whole.seconds += outcome.seconds
        whole.codes += outcome.codes
        whole.advised += outcome.advised
        whole.reset += outcome.reset
        whole.late += outcome.late
        whole.unsent += outcome.unsent
    return whole


def _due(rate: float, seconds: float) -> Iterator[float]:
    """Seconds from the start at which a call is due."""
    return (number / rate for number in range(max(1, round(rate * seconds))))


def _drive(
    selector: selectors.BaseSelector,
    opened: Sequence[Connection],
    due: Iterator[float],
    framed: Iterator[bytes],
    warm_up: float,
    seconds: float,
) -> None:
    start, turns = time.monotonic(), itertools.cycle(opened)
    for connection in opened:
        connection.counted = (start + warm_up, start + warm_up + seconds)
    upcoming: float | None = next(due)
    while upcoming is not None or not all(connection.idle for connection in opened):
        now = time.monotonic()
        while upcoming is not None and start + upcoming <= now:
            next(turns).call(start + upcoming, next(framed), upcoming >= warm_up)
            upcoming = next(due, None)
        for connection in opened:
            connection.expire(now)
            connection.write(now)
        for key, _ in selector.select(TICK):
            key.data.read()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field that is not to be remembered (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _headers(path: str, port: int) -> bytes:
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"127.0.0.1:%d" % port),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    return b"".join(_literal(name, value) for name, value in fields)


def _status(trailers: bytes) -> int:
    """Without a table of remembered fields, the status stands there in plain: name, length, digits."""
    place = trailers.find(STATUS)
    if place < 0:
        raise ConnectionError(f"trailers without a status: {trailers!r}")
    length = trailers[place + len(STATUS)]
    start = place + len(STATUS) + 1
    return int(trailers[start : start + length])
