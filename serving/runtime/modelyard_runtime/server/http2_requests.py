"""What a connection of HTTP/2 hands over: whole requests, for whole answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from modelyard_runtime.server.body_memory import BodyMemory, HeldBytes
from modelyard_runtime.server.http2_heads import Http2Head


class Http2Request(NamedTuple):
    """A request.

    Attributes:
        head: Its head.
        body: Its body; None of one that is longer than a body may be.
        held: The body in the server's memory; what is made of it is to be added.
        client: Address of the client.
    """

    head: Http2Head
    body: bytes | bytearray | None
    held: HeldBytes
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

    def refuse(self, head: Http2Head, client: str) -> Http2Answer | None:
        """Refuse a request by its head, before any of its body is kept; None to take it."""

    async def answer(self, request: Http2Request) -> Http2Answer:
        """Answer a request; cancelled when the client gives it up."""

    def on_fault(self, client: str) -> None:
        """Handle the end of a connection whose client does not speak HTTP/2."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of connections.

    Attributes:
        memory: What the bodies of all connections have together.
        body_bytes: Longest body of a request.
        body_seconds: Longest time that a request may take to arrive, and that a client may leave
            an answer without taking any of it.
        head_seconds: Longest time until a new connection has its first request.
        idle_seconds: Longest time without a request.
        connections: Most at once; others are closed.
    """

    memory: BodyMemory = field(default_factory=lambda: BodyMemory(512 * 2**20))
    body_bytes: int = 128 * 2**20
    body_seconds: float = 60.0
    head_seconds: float = 20.0
    idle_seconds: float = 300.0
    connections: int = 500
