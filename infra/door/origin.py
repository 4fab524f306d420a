"""Checks of a request's Host, Origin and Sec-Fetch headers. Pure.

The host's name is checked against DNS rebinding. Its port is not: a browser puts there what it
connected to, which behind a forwarded port is another than ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

_TRUSTED_SITES = frozenset({b"same-origin", b"none"})
# Headers on which the rules depend; a second one of a name is a way around them.
_SINGLE = frozenset(
    {b"host", b"origin", b"authorization", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"}
)

Headers = Mapping[bytes, bytes]


class AllowedHosts:
    """Allowed host names of a server."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Allow the loopback names, and ``names`` beside them."""
        extra = (name.strip().lower().encode() for name in names)
        self._names = frozenset([*(name.encode() for name in LOOPBACK), *filter(None, extra)])

    def allows(self, host: bytes) -> bool:
        """Whether a ``Host`` header, with or without a port, has one of the names."""
        name, colon, port = host.lower().rpartition(b":")
        if not colon or not port.isdigit():
            name = host.lower()
        return name in self._names


def collect(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """Collect the headers by name; None if one that the checks depend on occurs twice."""
    pairs = list(headers)
    found = dict(pairs)
    if len(found) < len(pairs):
        for name in _SINGLE & found.keys():
            if sum(one == name for one, _ in pairs) > 1:
                return None
    return found


def is_foreign(headers: Headers) -> bool:
    """Whether the ``Origin`` header names another origin than the request's own host."""
    origin = headers.get(b"origin")
    if origin is None:
        return False
    scheme, separator, netloc = origin.lower().partition(b"://")
    known = {b"http": b":80", b"https": b":443"}.get(scheme)
    host = headers.get(b"host", b"").lower()
    if not separator or known is None:  # such as null, of a sandboxed frame or a local file
        return True
    return netloc.removesuffix(known) != host.removesuffix(known)


def is_navigation(method: str, headers: Headers) -> bool:
    """Whether a browser opens this as a top-level page."""
    return (
        method == "GET"
        and headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
    )


def is_cross_origin(method: str, headers: Headers) -> bool:
    """Whether a page of another origin sends this in a way that it could exploit.

    A link that is followed from elsewhere opens a page, which the other origin cannot read.
    """
    site = headers.get(b"sec-fetch-site")
    return site is not None and site not in _TRUSTED_SITES and not is_navigation(method, headers)
