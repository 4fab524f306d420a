"""What a connection of HTTP/2 hands over: whole requests, for whole answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from modelyard_runtime.server.http2_heads import Http2Head


class Http2Request(NamedTuple):
    """A request.

    Attributes:
        head: Its head.
        body: Its body; None of one that is longer than the connection's limit.
        client: Address of the client.
    """

    head: Http2Head
    body: bytes | bytearray | None
    client: str


class Http2Answer(NamedTuple):
    """The answer to a request.

    Attributes:
        head: Its encoded header fields.
        body: Its body.
        trailers: Its encoded trailers; b"" of an answer that is a head alone.
    """

    head: bytes
    body: bytes = b""
    trailers: bytes = b""


class Http2Handler(Protocol):
    """What answers the requests of connections."""

    async def answer(self, request: Http2Request) -> Http2Answer:
        """Answer a request; cancelled when the client gives it up."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of a connection.

    Attributes:
        body_bytes: Longest body of a request.
        body_seconds: Longest time that a request may take to arrive.
        head_seconds: Longest time until a new connection says that it is of HTTP/2.
    """

    body_bytes: int = 128 * 2**20
    body_seconds: float = 60.0
    head_seconds: float = 20.0
