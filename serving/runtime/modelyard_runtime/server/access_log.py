"""The access log: a line for each request, for people or in JSON.

A line has what Azure ML's server logs of a request, and neither bodies nor headers nor queries,
which may have secrets. What clients can choose is escaped, so that no request writes a second
line, and cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import secrets
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, TextIO

import orjson

from modelyard_runtime.server.observation import RequestRecord

_FLUSH_SECONDS = 0.2
_MOST_LINES = 500
_LONGEST_PATH, _LONGEST_ID = 500, 100
_PLAIN = re.compile(r"[!#-\[\]-~]+")  # printable ASCII without blanks, quotes and backslashes
_IDS = {b"x-request-id": "request_id", b"x-ms-client-request-id": "client_request_id"}
_SERVERS_FAULT = frozenset({"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"})
_GRANTED = frozenset({"OK", "CANCELLED"})


class AccessLogFormat(StrEnum):
    """Format of the access log.

    Attributes:
        TEXT: A line for people.
        JSON: An object in JSON on each line.
        OFF: No access log.
    """

    TEXT = "text"
    JSON = "json"
    OFF = "off"


class AccessLog:
    """Writes a line for each request, some of them together. For one event loop."""

    reads_scopes = True

    def __init__(
        self, stream: TextIO, format: AccessLogFormat, now: Callable[[], float] = time.time
    ) -> None:
        """Write to ``stream``; ``now`` is the time in seconds since 1970."""
        self._stream = stream
        self._write = {AccessLogFormat.TEXT: _text, AccessLogFormat.JSON: _json}[format]
        self._now = now
        self._lines: list[str] = []
        self._ids = map(f"{secrets.token_hex(4)}-{{:x}}".format, itertools.count(1))
        self._second, self._written_second = 0, ""

    def on_begin(self, record: RequestRecord) -> None:
        """Give a request its ids: those that it brings, else one of its own."""
        for name, value in record.scope.get("headers", ()):
            if name in _IDS:
                setattr(record, _IDS[name], value.decode("latin-1"))
        record.request_id = record.request_id or next(self._ids)
        if record.request_id.isascii() and record.request_id.isprintable():
            record.answer_headers.append((b"x-request-id", record.request_id.encode()))

    def on_end(self, record: RequestRecord) -> None:
        """Write its line, soon."""
        if not self._lines:
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
        self._lines.append(self._write(self._time(), record))
        if len(self._lines) >= _MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the lines that are not written yet. A log that cannot be written fails nothing."""
        lines, self._lines = self._lines, []
        with contextlib.suppress(OSError, ValueError):
            for text in _joined(lines):
                self._stream.write(text)
                self._stream.flush()

    def _time(self) -> str:
        now = self._now()
        if int(now) != self._second:
            self._second = int(now)
            self._written_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        return f"{self._written_second}.{int(now % 1 * 1000):03d}Z"


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Lines together, as many as a pipe takes from one process before it does from another."""
    text = ""
    for line in lines:
        if len(text) + len(line) > select.PIPE_BUF:
            yield text
            text = ""
        text += line
    if text:
        yield text


def _text(at: str, record: RequestRecord) -> str:
    scope = record.scope
    line = (
        f"{at} {_level(record.code)} {_shown(scope['method'])} {_shown(_path(scope))} "
        f"{record.code} {record.seconds * 1000:.3f}ms {record.sent}B {_shown(record.request_id)}"
    )
    if record.client_request_id:
        line += f" client_request_id={_shown(record.client_request_id)}"
    return f"{line}\n"


def _json(at: str, record: RequestRecord) -> str:
    scope = record.scope
    client = scope.get("client")
    fields = {
        "time": at,
        "level": _level(record.code),
        "request_id": record.request_id[:_LONGEST_ID],
        "client_request_id": record.client_request_id[:_LONGEST_ID],
        "client": client[0] if client else "",
        "protocol": record.protocol,
        "method": scope["method"],
        "path": _path(scope)[:_LONGEST_PATH],
        "model": record.model,
        "status": int(record.code) if record.code.isdigit() else record.code,
        "duration_ms": round(record.seconds * 1000, 3),
        "response_bytes": record.sent,
    }
    line = orjson.dumps(fields).decode()
    return (line if line.isascii() else json.dumps(fields)) + "\n"


def _level(code: str) -> str:
    if code in _GRANTED or code < "4":
        return "INFO"
    return "ERROR" if code[0] == "5" or code in _SERVERS_FAULT else "WARNING"


def _path(scope: Mapping[str, Any]) -> str:
    """The path as it was sent, without its query."""
    raw = scope.get("raw_path") or scope["path"].encode()
    return str(raw.partition(b"?")[0].decode("latin-1"))


def _shown(value: str) -> str:
    """What a client sent as one word of ASCII: quoted where it is none, a dash if it is empty."""
    value = value[:_LONGEST_PATH] or "-"
    return value if _PLAIN.fullmatch(value) else ascii(value)
