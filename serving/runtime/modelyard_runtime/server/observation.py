"""Records of requests, and the sinks that observe them.

A record of the request is the context's while it is answered: what routes it and finds its model
writes that there, and nothing of it is passed on from function to function.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:  # commands read options of the log, and numpy takes long to import
    from modelyard_runtime.frames import Columns

_CURRENT: ContextVar[RequestRecord | None] = ContextVar("request", default=None)
_FAILED = "500"


class RequestRecord:
    """A request that is answered.

    Attributes:
        protocol: ``v1``, ``v2``, ``grpc`` or ``azureml``; ``http`` of what is in none.
        method: What it asks for, as the protocol calls it; ``other`` of what there is not, and
            ``malformed`` of what is refused before anything of it is known.
        model: The model's name; "" if it asks for none, or for one that there is not.
        code: What it is answered with: an HTTP status, or the name of gRPC's.
        began: When it was there, by the clock of ``time.perf_counter``.
        seconds: How long it took; 0 while it is answered.
        scope: The request's ASGI scope, as far as it is known.
        request_id: Its id; "" until one is given.
        client_request_id: The id that its client gave it; "" without.
        answer_headers: Headers for its answer, which count where the answer has not its own.
        sent: Bytes of the answer's body.
        batches: Gets the batches that the request is predicted in, if a list is there.
        span: Its span, if it is traced.
    """

    __slots__ = (
        "answer_headers", "batches", "began", "client_request_id", "code", "method", "model",
        "protocol", "request_id", "scope", "seconds", "sent", "span",
    )  # fmt: skip

    def __init__(self, protocol: str, method: str, scope: Mapping[str, Any]) -> None:
        """Begin a request."""
        self.scope = scope
        self.request_id = self.client_request_id = ""
        self.answer_headers: list[tuple[bytes, bytes]] = []
        self.batches: list[BatchTimes] | None = None
        self.span: Any = None
        self.sent = 0
        self.protocol = protocol
        self.method = method
        self.model = ""
        self.code = _FAILED
        self.seconds = 0.0
        self.began = time.perf_counter()


class BatchTimes(NamedTuple):
    """When a request was predicted, by the clock of ``time.perf_counter``.

    Attributes:
        arrived: When it began to wait.
        began: When the batch that it was in began to be predicted.
        ended: When that was predicted.
        rows: Rows of the batch.
        requests: Its requests.
    """

    arrived: float
    began: float
    ended: float
    rows: int
    requests: int


class RequestSink(Protocol):
    """A sink of request records.

    Attributes:
        reads_scopes: Whether it reads the scope of a record.
    """

    reads_scopes: bool

    def on_begin(self, record: RequestRecord) -> None:
        """Handle the begin of a request."""

    def on_end(self, record: RequestRecord) -> None:
        """Handle the end of a request."""


class ModelObserver:
    """Observer of a model's requests; the base class ignores every event.

    Methods may be called in the thread that predicts, one batch after another.
    """

    def on_loaded(self, seconds: float) -> None:
        """Handle the end of loading, which took ``seconds``."""

    def on_waiting(self, requests: int) -> None:
        """Handle a longer queue, of so many requests."""

    def on_refused(self) -> None:
        """Handle a request that was refused because too many wait."""

    def on_overdue(self) -> None:
        """Handle a request that exceeded its time limit."""

    def on_batch(self, waits: Sequence[float]) -> None:
        """Handle a batch; ``waits`` are the seconds for which its requests waited."""

    def on_predicted(self, rows: int, seconds: float, outputs: Columns) -> None:
        """Handle the outputs of so many ``rows``, which took ``seconds``."""


class RequestObserver:
    """Create the records of requests, and pass them to sinks."""

    def __init__(self, sinks: Sequence[RequestSink] = ()) -> None:
        """Pass records to ``sinks``."""
        self._sinks = tuple(sinks)
        self.reads_scopes = any(one.reads_scopes for one in sinks)

    def begin(self, protocol: str, method: str, scope: Mapping[str, Any]) -> RequestRecord:
        """Create the record of the request that this context answers."""
        record = RequestRecord(protocol, method, scope)
        _CURRENT.set(record)
        for sink in self._sinks:
            sink.on_begin(record)
        return record

    def end(self, record: RequestRecord) -> None:
        """Complete the record of a request."""
        record.seconds = time.perf_counter() - record.began
        for sink in self._sinks:
            sink.on_end(record)


def current() -> RequestRecord | None:
    """Return the record of the request that this context answers."""
    return _CURRENT.get()


def is_routed(protocol: str, method: str) -> None:
    """Say what the current request asks for."""
    if record := _CURRENT.get():
        record.protocol, record.method = protocol, method


def is_of_model(name: str) -> None:
    """Say which of the server's models the current request is for."""
    if record := _CURRENT.get():
        record.model = name


def has_ids(request_id: str, client_request_id: str) -> None:
    """Say which ids the answer to the current request carries."""
    if record := _CURRENT.get():
        record.request_id, record.client_request_id = request_id, client_request_id


class ObservedApplication:
    """An ASGI application whose requests are observed, those too that it refuses."""

    def __init__(self, application: Any, observer: RequestObserver) -> None:
        """Observe the requests of ``application``."""
        self._application = application
        self._observer = observer

    @property
    def is_draining(self) -> bool:
        """Whether the server is ending."""
        return bool(self._application.is_draining)

    @is_draining.setter
    def is_draining(self, value: bool) -> None:
        self._application.is_draining = value

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        record = self._observer.begin("http", "other", scope)

        async def observed(message: Any) -> None:
            if message["type"] == "http.response.start":
                record.code = str(message["status"])
                if record.answer_headers:
                    message = _with_headers(message, record.answer_headers)
            else:
                record.sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._application(scope, receive, observed)
        finally:
            self._observer.end(record)


def _with_headers(message: Mapping[str, Any], more: Sequence[tuple[bytes, bytes]]) -> Any:
    own = list(message["headers"])
    names = {name.lower() for name, _ in own}
    return {**message, "headers": own + [one for one in more if one[0] not in names]}
