"""Heads of HTTP/2 requests: decompressed, and checked as RFC 9113, section 8, asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpack import Decoder, HPACKError, OversizedHeaderListError

from modelyard_runtime.server.http2_frames import ErrorCode, Http2Error

HEAD_BYTES = 64 * 2**10  # longest head, decompressed as RFC 7541, section 4.1, counts
_MOST_CACHED = 64
_MOST_CACHED_BYTES = 2048  # of the values of a head

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_NEEDED = _PSEUDO - {b":authority"}
# Of the connection, which HTTP/2 manages itself.
_FORBIDDEN = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")


@dataclass(frozen=True)
class Http2Head:
    """Head of a request.

    Attributes:
        method: Its method.
        path: Its path, with the query.
        fields: Its header fields; values of one name are joined with a comma.
        fault: Why it is malformed; "" if it is not.
    """

    method: bytes
    path: bytes
    fields: Mapping[bytes, bytes]
    fault: str = ""


class HeadDecoder:
    """Decodes the heads of one connection, in their order.

    Clients send the same head again and again, mostly as a few indexes of the table of the
    connection. Heads are therefore kept by their bytes, as long as the table has not changed.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(HEAD_BYTES)
        self._cached: dict[bytes, Http2Head] = {}

    def decode(self, block: bytes) -> Http2Head:
        """Decode a head.

        Raises:
            Http2Error: If it is longer than 64 KiB, or is not HPACK; the connection ends.
        """
        if found := self._cached.get(block):
            return found
        table = self._decoder.header_table
        entries, size = table.dynamic_entries, table.maxsize
        count, newest = len(entries), entries[0] if entries else None
        try:
            found = _head(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise Http2Error(
                ErrorCode.ENHANCE_YOUR_CALM, f"The headers have more than {HEAD_BYTES} bytes."
            ) from None
        except HPACKError:
            raise Http2Error(ErrorCode.COMPRESSION_ERROR, "A head is not HPACK.") from None
        is_same = (
            (table.maxsize, len(entries)) == (size, count)
            and (entries[0] if entries else None) is newest  # each new entry is the first
        )
        if not is_same or len(self._cached) >= _MOST_CACHED:
            self._cached.clear()
        # Where the table has changed, the same bytes mean another head next time.
        if is_same and sum(map(len, found.fields.values())) <= _MOST_CACHED_BYTES:
            self._cached[block] = found
        return found


def _head(fields: Iterable[tuple[bytes, bytes]]) -> Http2Head:
    found: dict[bytes, bytes] = {}
    fault = ""
    for name, value in fields:
        fault = fault or _fault(name, value, found)
        if name in found:
            if name in _PSEUDO:
                fault = fault or f"The head has {name.decode()} twice."
            separator = b"; " if name == b"cookie" else b","
            found[name] = found[name] + separator + value
            continue
        found[name] = value
    if missing := sorted(_NEEDED - found.keys()):
        fault = fault or f"The head has no {missing[0].decode()}."
    if not found.get(b":path", b"/"):
        fault = fault or "The head has an empty :path."
    pseudo = {name: found.pop(name, b"") for name in _PSEUDO}
    if pseudo[b":authority"]:
        found.setdefault(b"host", pseudo[b":authority"])
    return Http2Head(pseudo[b":method"], pseudo[b":path"], found, fault)


def _fault(name: bytes, value: bytes, before: Mapping[bytes, bytes]) -> str:
    """Why a header field is malformed; "" if it is not."""
    if not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
        return "The head has a malformed field."
    if name[:1] == b":":
        if name not in _PSEUDO:
            return "The head has an unknown pseudo-header."
        if before.keys() - _PSEUDO:
            return f"The head has {name.decode()} after other fields."
    if name in _FORBIDDEN or (name == b"te" and value != b"trailers"):
        return f"The head has {name.decode()}, which is not for HTTP/2."
    return ""
