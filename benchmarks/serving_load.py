"""A load of requests, as cheap as Python has it: ``python -m benchmarks.serving_load SPEC``.

One thread keeps a number of connections busy: each sends the same bytes, waits for the answer, and
sends them again. It is the same for every server. What it costs itself is in its result, and none
of it in the server's figures.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_RECEIVED = 1 << 16
_LONGEST_SILENCE = 30.0  # seconds


@dataclass(frozen=True)
class Load:
    """What is asked of a server.

    Attributes:
        port: Its port on loopback.
        path: The path; of gRPC the method.
        body: The body, in hexadecimal digits.
        is_grpc: Whether over gRPC.
        connections: How many at once.
        seconds: For how long.
        warm_up: Seconds before, which do not count.
    """

    port: int
    path: str
    body: str
    is_grpc: bool = False
    connections: int = 1
    seconds: float = 3.0
    warm_up: float = 0.5


@dataclass(frozen=True)
class LoadResult:
    """What came of it.

    Attributes:
        requests: How many were answered.
        seconds: In how long.
        p50: Half of them took no longer; in milliseconds.
        p99: Nor 99 of 100.
        client_us: Microseconds of processor of this client, for each.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    client_us: float

    @property
    def per_second(self) -> float:
        """Requests for each second."""
        return self.requests / self.seconds


class UnansweredError(Exception):
    """A server that refused a request of the load, or was silent."""


class Connection(ABC):
    """A connection that has one request at a time."""

    def __init__(self, load: Load) -> None:
        self.socket = socket.create_connection(("127.0.0.1", load.port), _LONGEST_SILENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0

    @abstractmethod
    def send(self) -> None:
        """Send the request."""

    @abstractmethod
    def receive(self) -> bool:
        """Read what is there; whether that completes the answer.

        Raises:
            UnansweredError: If the request is refused.
        """


class HttpConnection(Connection):
    """A connection of HTTP/1.1."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        body = bytes.fromhex(load.body)
        head = (
            f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._received = b""

    def send(self) -> None:
        """Send the request."""
        self.socket.sendall(self._request)

    def receive(self) -> bool:
        """Read what is there; see :meth:`Connection.receive`."""
        self._received += self._read()
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise UnansweredError(self._received.decode(errors="replace"))
        _, _, length = head.lower().partition(b"\r\ncontent-length:")
        if len(body) < int(length.partition(b"\r\n")[0]):
            return False
        self._received = b""
        return True

    def _read(self) -> bytes:
        found = self.socket.recv(_RECEIVED)
        if not found:
            raise UnansweredError(f"The connection ended: {self._received!r}")
        return found


# Frames of HTTP/2 (RFC 9113): length in 3 bytes, type, flags, stream.
_FRAME = struct.Struct(">BHBBI")
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WIDEST_WINDOW = 2**31 - 2**16


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    return _FRAME.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that no table remembers (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class GrpcConnection(Connection):
    """A connection of gRPC, whose every request is a stream of its own."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        body = bytes.fromhex(load.body)
        self._data = b"\0" + struct.pack(">I", len(body)) + body
        self._headers = b"".join(
            [_literal(b":method", b"POST"), _literal(b":scheme", b"http"),
             _literal(b":path", load.path.encode()), _literal(b":authority", b"localhost"),
             _literal(b"te", b"trailers"), _literal(b"content-type", b"application/grpc")]
        )  # fmt: skip
        self._stream = -1
        self._received = b""
        self._has_data = False
        window = struct.pack(">I", _WIDEST_WINDOW)
        self.socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_WINDOW, 0, 0, window))

    def send(self) -> None:
        """Send the request."""
        self._stream += 2
        self._has_data = False
        self.socket.sendall(
            _frame(_HEADERS, _END_HEADERS, self._stream, self._headers)
            + _frame(_DATA, _END_STREAM, self._stream, self._data)
        )

    def receive(self) -> bool:
        """Read what is there; see :meth:`Connection.receive`."""
        found = self.socket.recv(_RECEIVED)
        if not found:
            raise UnansweredError("The connection ended.")
        self._received += found
        at, is_complete = 0, False
        while len(self._received) - at >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(self._received, at)
            end = at + _FRAME.size + (high << 16 | low)
            if end > len(self._received):
                break
            payload = self._received[at + _FRAME.size : end]
            is_complete |= self._read(kind, flags, stream, payload)
            at = end
        self._received = self._received[at:]
        return is_complete

    def _read(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Take a frame; whether it ends the answer."""
        if kind in {_SETTINGS, _PING} and not flags & _ACK:
            self.socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        if kind in {_RESET, _GO_AWAY}:
            raise UnansweredError(f"The server ended it: {payload!r}")
        if stream != self._stream:
            return False
        self._has_data |= kind == _DATA
        is_last = bool(kind == _HEADERS and flags & _END_STREAM)
        if is_last and not self._has_data:  # a refusal has trailers alone
            raise UnansweredError(payload.decode(errors="replace"))
        return is_last


def run(load: Load) -> LoadResult:
    """Keep a server busy.

    Raises:
        UnansweredError: If it refuses a request, or is silent.
        OSError: If it is away.
    """
    kind = GrpcConnection if load.is_grpc else HttpConnection
    connections = {
        one.socket.fileno(): one for one in (kind(load) for _ in range(load.connections))
    }
    poll = select.epoll()
    for number in connections:
        poll.register(number, select.EPOLLIN)
    for one in connections.values():
        one.began = time.perf_counter()
        one.send()
    _answered(poll, connections, load.warm_up)
    began, processor = time.perf_counter(), time.process_time()
    taken = _answered(poll, connections, load.seconds)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    taken.sort()
    return LoadResult(
        len(taken), seconds, 1e3 * taken[len(taken) // 2], 1e3 * taken[int(0.99 * len(taken))],
        1e6 * processor / len(taken),
    )  # fmt: skip


def _answered(
    poll: select.epoll, connections: Mapping[int, Connection], seconds: float
) -> list[float]:
    """What each answer took of those that came within some time, in seconds."""
    taken: list[float] = []
    now = time.perf_counter()
    until = now + seconds
    while now < until or not taken:
        ready = poll.poll(_LONGEST_SILENCE)
        if not ready:
            raise UnansweredError("The server was silent.")
        for number, _ in ready:
            one = connections[number]
            if one.receive():
                now = time.perf_counter()
                taken.append(now - one.began)
                one.began = now
                one.send()
    return taken


def main() -> None:
    """Run a load that is given as JSON, and print its result as JSON."""
    given: Mapping[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(asdict(run(Load(**given)))))


if __name__ == "__main__":
    main()
