"""The Open Inference Protocol's gRPC: the same models, queues and limits as over HTTP.

Requests are read, predicted and answered on the event loop, as those of HTTP are, so that they
share its batches. grpcio has two servers: one hands each request from thread to thread, the other
takes one at a time from the connections, so that none arrives while another is predicted.
What is on the wire is described in
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from urllib.parse import quote

from google.protobuf.message import DecodeError

from modelyard_runtime.server import grpc_tensors, open_inference
from modelyard_runtime.server.admission import UNAUTHORIZED, carries
from modelyard_runtime.server.call_thread import run_aside
from modelyard_runtime.server.grpc_messages import SERVICE, message
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.http2_connection import Http2Connection
from modelyard_runtime.server.http2_frames import header
from modelyard_runtime.server.http2_heads import Http2Head
from modelyard_runtime.server.http2_requests import ConnectionLimits, Http2Answer, Http2Request
from modelyard_runtime.server.observation import RequestObserver, RequestRecord
from modelyard_runtime.server.refusals import RequestRefused, bad
from modelyard_runtime.server.request_bodies import ENCODINGS, RequestLimits, decompressed
from modelyard_runtime.server.served_models import ServedModels


class GrpcCode(IntEnum):
    """Status codes of gRPC that the server answers with."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


# What a refusal's HTTP status is in gRPC.
_CODES: Mapping[int, GrpcCode] = {
    400: GrpcCode.INVALID_ARGUMENT,
    401: GrpcCode.UNAUTHENTICATED,
    404: GrpcCode.NOT_FOUND,
    413: GrpcCode.RESOURCE_EXHAUSTED,
    415: GrpcCode.UNIMPLEMENTED,
    429: GrpcCode.RESOURCE_EXHAUSTED,
    500: GrpcCode.INTERNAL,
    501: GrpcCode.UNIMPLEMENTED,
    503: GrpcCode.UNAVAILABLE,
    504: GrpcCode.DEADLINE_EXCEEDED,
}

# The words of a refusal are a header, percent-encoded; clients take 8 KiB of headers.
_MESSAGE_BYTES = 2000
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

_PREFIX_BYTES = 5  # before a message: whether it is compressed, and its length
_CONTENT_TYPE = b"application/grpc"
_STATUS_200 = b"\x88"  # of HPACK's static table
_HEAD = (
    _STATUS_200 + header(b"content-type", _CONTENT_TYPE)
    + header(b"grpc-accept-encoding", ",".join(ENCODINGS).encode())
)  # fmt: skip
_OK = header(b"grpc-status", b"0")
# What is not gRPC has an answer of HTTP alone.
_NOT_POST = header(b":status", b"405") + header(b"allow", b"POST")
_NOT_GRPC = header(b":status", b"415")

_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TICK_SECONDS = 0.02

_PROBES = frozenset({"ServerLive", "ServerReady"})


@dataclass(frozen=True)
class _Method:
    """A method of the protocol.

    Attributes:
        name: Its name.
        observed: Its name in metrics and logs.
        request: The class of its requests.
        answer: What answers one, with the bytes of the answer's message.
    """

    name: str
    observed: str
    request: Any
    answer: Callable[[Any], Awaitable[Any]]


class GrpcServer:
    """Answers gRPC requests for some models."""

    def __init__(
        self, models: ServedModels, opened: socket.socket, limits: RequestLimits,
        token: str = "", observer: RequestObserver | None = None,
    ) -> None:  # fmt: skip
        """Serve ``models``.

        Args:
            models: The models.
            opened: Where to listen.
            limits: Limits of requests.
            token: What the metadatum ``authorization`` has to carry, but for probes; "" if
                nothing. Pages in a browser cannot ask it, so there is no more to check.
            observer: Observer of requests; None for none.
        """
        self._models = models
        self._socket = opened
        self._most_bytes = limits.body_bytes
        self._limits = ConnectionLimits(
            limits.memory, limits.body_bytes + _PREFIX_BYTES, limits.body_seconds
        )
        self._token = token.encode()
        self._observer = observer or RequestObserver()
        self._connections: set[Http2Connection] = set()
        self._server: asyncio.Server | None = None
        methods: Mapping[str, Callable[[Any], Awaitable[Any]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        self._methods = {
            f"/{SERVICE}/{name}".encode(): _Method(
                name, _snake_case(name), message(f"{name}Request"), answer
            )
            for name, answer in methods.items()
        }

    @property
    def port(self) -> int:
        """The port."""
        return int(self._socket.getsockname()[1])

    async def start(self, backlog: int = 100) -> None:
        """Accept connections, of which ``backlog`` may wait."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Http2Connection(self, self._limits, self._connections),
            sock=self._socket, backlog=backlog,
        )  # fmt: skip

    async def stop(self, seconds: float) -> None:
        """Accept nothing more, and answer what has begun within ``seconds``."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.drain()
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while self._connections and loop.time() < ends:
            await asyncio.sleep(_TICK_SECONDS)
        for connection in list(self._connections):
            connection.abort()

    def refuse(self, head: Http2Head, client: str) -> Http2Answer | None:
        """Refuse what is not gRPC, has no method here, or lacks the token."""
        if head.method != b"POST" or not _is_grpc(head):
            self._observe_malformed(client, "405" if head.method != b"POST" else "415")
            return Http2Answer(_NOT_POST if head.method != b"POST" else _NOT_GRPC)
        try:
            self._check(head)
        except RequestRefused as refusal:
            return self._refused(self._begin(head, client), refusal)
        return None

    def on_fault(self, client: str) -> None:
        """Observe what is not HTTP/2."""
        self._observe_malformed(client, "400")

    async def answer(self, request: Http2Request) -> Http2Answer:
        """Answer a request that is not refused by its head."""
        record = self._begin(request.head, request.client)
        try:
            found = await self._answer(request, self._methods[request.head.path])
        except RequestRefused as refusal:
            return self._refused(record, refusal)
        except asyncio.CancelledError:
            self._end(record, GrpcCode.CANCELLED)
            raise
        except Exception:  # noqa: BLE001 (the edge of the server)
            print(traceback.format_exc(), file=sys.stderr, end="", flush=True)
            return self._refused(record, RequestRefused(500, "The server failed; see its log."))
        more = self._end(record, GrpcCode.OK, len(found))
        return Http2Answer(_HEAD, b"\0" + len(found).to_bytes(4) + found, _OK + more)

    def _check(self, head: Http2Head) -> None:
        method = self._methods.get(head.path)
        if method is None:
            raise RequestRefused(501, f"There is no method {head.path.decode(errors='replace')}.")
        if self._token and method.name not in _PROBES:
            given = head.fields.get(b"authorization")  # joined, and another, if there are several
            if given is None or not carries(given.decode(errors="replace"), self._token):
                raise RequestRefused(401, UNAUTHORIZED)

    def _begin(self, head: Http2Head, client: str) -> RequestRecord:
        method = self._methods.get(head.path)
        scope = _scope(head, client) if self._observer.reads_scopes else {}
        return self._observer.begin("grpc", method.observed if method else "other", scope)

    def _end(self, record: RequestRecord, code: GrpcCode, sent: int = 0) -> bytes:
        """Observe the end of a request; header fields for its answer."""
        record.code, record.sent = code.name, sent
        self._observer.end(record)
        return b"".join(header(name, value) for name, value in record.answer_headers)

    def _refused(self, record: RequestRecord, refusal: RequestRefused) -> Http2Answer:
        code = _CODES[refusal.status]
        return Http2Answer(_HEAD + _refusal(code, refusal.message) + self._end(record, code))

    def _observe_malformed(self, client: str, status: str) -> None:
        """Record what is no request of gRPC's, without a word of what was sent."""
        scope = {"method": "", "path": "", "client": (client, 0)}
        record = self._observer.begin("http", "malformed", scope)
        record.code = status
        self._observer.end(record)

    async def _answer(self, request: Http2Request, method: _Method) -> bytes:
        """The message that answers a request."""
        try:
            async with asyncio.timeout(_timeout(request.head.fields)):
                answered = await method.answer(await self._parsed(request, method))
        except TimeoutError:
            raise RequestRefused(504, "The time that the client gives is over.") from None
        found: bytes = await run_aside(answered.ByteSize(), answered.SerializeToString)
        return found

    async def _parsed(self, request: Http2Request, method: _Method) -> Any:
        """The message of a request."""
        body = request.body
        if body is None:
            raise self._too_large()
        is_compressed, size = body[:1] == b"\1", int.from_bytes(body[1:_PREFIX_BYTES])
        if len(body) != _PREFIX_BYTES + size or body[0] > 1:
            raise bad("The request's body is not one message of gRPC.")
        given: bytes | memoryview = memoryview(body)[_PREFIX_BYTES:]
        if is_compressed:
            encoding = request.head.fields.get(b"grpc-encoding", b"").decode("latin-1")
            if encoding not in ENCODINGS:
                raise RequestRefused(501, f"Messages are not compressed by {encoding!r}, "
                                          f"but by {', '.join(ENCODINGS)}.")  # fmt: skip
            given = await run_aside(size, decompressed, given, encoding, self._most_bytes,
                                     request.held)  # fmt: skip
        return await run_aside(len(given), _message, method.request, given)

    def _too_large(self) -> RequestRefused:
        return RequestRefused(413, f"The message has more than {self._most_bytes} bytes.")

    async def _server_live(self, _: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _server_ready(self, _: Any) -> Any:
        return message("ServerReadyResponse")(ready=_is_ready(self._models))

    async def _model_ready(self, request: Any) -> Any:
        return message("ModelReadyResponse")(ready=_is_ready(self._model(request)))

    async def _server_metadata(self, _: Any) -> Any:
        return message("ServerMetadataResponse")(**open_inference.server_metadata())

    async def _model_metadata(self, request: Any) -> Any:
        model = self._model(request)
        model.check_ready()
        found = open_inference.described(
            model.name, [model.version], model.platform, model.inputs, model.outputs
        )
        return message("ModelMetadataResponse")(**found)

    async def _model_infer(self, request: Any) -> Any:
        model = self._models.find(request.model_name, request.model_version or None)
        asked = await run_aside(request.ByteSize(), grpc_tensors.read, request)
        outputs = await model.infer(asked.inputs)
        size = sum(array.nbytes for array in outputs.values())
        return await run_aside(size, grpc_tensors.write, asked, outputs, model.name, model.version)

    def _model(self, request: Any) -> HostedModel:
        return self._models.find(request.name, request.version or None)


def _is_grpc(head: Http2Head) -> bool:
    return head.fields.get(b"content-type", b"").startswith(_CONTENT_TYPE)


def _scope(head: Http2Head, client: str) -> Mapping[str, Any]:
    """What ASGI would say of a request."""
    return {"method": "POST", "path": head.path.decode("latin-1"), "raw_path": head.path,
            "headers": list(head.fields.items()), "client": (client, 0)}  # fmt: skip


def _snake_case(name: str) -> str:
    return re.sub("(?<!^)([A-Z])", r"_\1", name).lower()


@functools.lru_cache(64)
def _seconds(given: bytes) -> float | None:
    found = _TIMEOUT.fullmatch(given)
    return int(found[1]) * _UNITS[found[2]] if found else None


def _timeout(fields: Mapping[bytes, bytes]) -> float | None:
    """The seconds that the client waits; None without a limit."""
    given = fields.get(b"grpc-timeout")
    if given is None:
        return None
    seconds = _seconds(given)
    if seconds is None:
        raise bad("grpc-timeout is no time.")
    return seconds


def _is_ready(one: ServedModels | HostedModel) -> bool:
    try:
        one.check_ready()
    except RequestRefused:
        return False
    return True


def _message(request: Any, body: bytes | memoryview) -> Any:
    try:
        return request.FromString(body)
    except DecodeError as error:
        raise bad(f"The request is no {request.DESCRIPTOR.name}: {error}.") from None


def _refusal(code: GrpcCode, words: str) -> bytes:
    """Trailers of a refusal."""
    short = words.encode(errors="replace")[:_MESSAGE_BYTES].decode(errors="ignore")
    return (
        header(b"grpc-status", str(code.value).encode())
        + header(b"grpc-message", quote(short, safe=_PLAIN).encode())
    )  # fmt: skip
