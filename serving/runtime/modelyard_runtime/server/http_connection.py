"""HTTP connections that end when a client takes too long, or sends too much before its body.

uvicorn limits neither the time nor the size of a request's head, so that a few slow clients, or
one that never stops, could use up what all share. Bodies have limits of their own, see
:mod:`modelyard_runtime.server.request_bodies`.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from modelyard_runtime.server.observation import RequestObserver

HEAD_SECONDS = 20.0
_HEAD_BYTES = 64 * 2**10  # a request's line and its headers
_UNREAD_SECONDS = 5.0  # for the rest of a body that was refused
_UPGRADE = re.compile(rb"\r\n(upgrade)[ \t]*:", re.IGNORECASE)
_MALFORMED = "The request is not HTTP as RFC 9112 has it."


class _HeadRefused(Exception):
    """A head that is not read on."""


class HttpConnection(HttpToolsProtocol):
    """A connection: uvicorn's, with limits before and after the body of a request."""

    def __init__(
        self, *given: Any, observer: RequestObserver | None = None,
        head_seconds: float = HEAD_SECONDS, **options: Any,
    ) -> None:  # fmt: skip
        """Serve a connection.

        Args:
            given: For uvicorn.
            observer: Observer of requests that are refused before the application has them; None
                for none.
            head_seconds: Longest time that a head may take to arrive, and that a connection may
                say nothing at first.
            options: For uvicorn.
        """
        super().__init__(*given, **options)
        self._observer = observer or RequestObserver()
        self._head_seconds = head_seconds
        self._refusal = (400, _MALFORMED)
        self._is_within = False  # a message, from its first byte to its last
        self._is_head = True
        self._head_bytes = 0  # of the packets since this head began
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the client its time for a first head."""
        super().connection_made(transport)
        self._start_timer(self._head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timer as well."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless a head is too long."""
        if self._is_head:
            self._head_bytes += len(data)
            data = _without_upgrade(data)
        super().data_received(data)
        if not self._is_head or self.transport.is_closing():
            return
        if self._head_bytes > _HEAD_BYTES:
            self._refusal = (431, _too_long())
            self.send_400_response("")
        elif self._is_within and self._timer is None:  # few heads come in more than one packet
            self._start_timer(self._head_seconds)

    def on_message_begin(self) -> None:
        """Begin with a head."""
        self._is_within = self._is_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer.

        Raises:
            _HeadRefused: If the head is too long; the parser makes an error of its own of it.
        """
        self._stop_timer()
        if self._head_bytes > _HEAD_BYTES:  # with what followed in the same packet
            length = len(self.url) + sum(
                len(name) + len(value) + 4 for name, value in self.headers
            )
            if length > _HEAD_BYTES:
                self._refusal = (431, _too_long())
                raise _HeadRefused
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._refusal = (400, "Give one Host header.")
            raise _HeadRefused
        super().on_headers_complete()
        self._is_head = False

    def on_message_complete(self) -> None:
        """Wait for the next request, as long as connections are kept."""
        self._is_within, self._is_head, self._head_bytes = False, True, 0
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Read the rest of a body that was refused, so that the client comes to read why."""
        if self._is_within and not self._is_head and not self.pipeline:
            self._start_timer(_UNREAD_SECONDS)
            if self.expect_100_continue:  # the client may leave the body out
                self.transport.close()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, in our words."""
        if self.transport.is_closing():
            return
        self._stop_timer()
        status, words = self._refusal
        body = orjson.dumps({"error": words})
        headers = [(b"content-type", b"application/json"), (b"connection", b"close"),
                   (b"content-length", str(len(body)).encode())]  # fmt: skip
        if self._is_head:  # else the application has the request, and it is observed there
            headers += self._observe(status, len(body))
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()

    def _observe(self, status: int, sent: int) -> list[tuple[bytes, bytes]]:
        """Record a refusal without a word of what was sent; headers for the answer."""
        scope = {"method": "", "path": "", "client": self.client}
        record = self._observer.begin("http", "malformed", scope)
        record.code, record.sent = str(status), sent
        self._observer.end(record)
        return record.answer_headers

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._on_overdue)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_overdue(self) -> None:
        self._timer = None
        if self._is_within and self._is_head:
            self._refusal = (408, "The request's headers took too long to arrive.")
            self.send_400_response("")
        else:  # a connection that says nothing, or a body that nobody reads
            self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """A head whose wish for another protocol is ignored, as RFC 9110 allows.

    The parser would take the body for that protocol, and lose it: clients such as Java's ask for
    HTTP/2 with every request.
    """
    found = _UPGRADE.search(data, 0, data.find(b"\r\n\r\n") + 1 or len(data))
    if not found:
        return data
    return b"".join([data[: found.start(1)], b"Ignored", data[found.end(1) :]])


def _too_long() -> str:
    return f"The request's line and headers have more than {_HEAD_BYTES} bytes."
