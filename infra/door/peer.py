"""The operating system's user at the other end of a loopback connection."""

from __future__ import annotations

import socket
import sys
import time
from collections import OrderedDict
from pathlib import Path

Address = tuple[str, int]

_TABLE = Path("/proc/net/tcp")
_UID = 7  # its column there
_CACHED = 512
_CACHE_SECONDS = 1.0  # no longer than a closed connection keeps its port from others


class PeerUsers:
    """Looks up users by connection; remembers them for a moment."""

    def __init__(self, table: Path = _TABLE) -> None:
        self._table = table
        self._cache: OrderedDict[tuple[Address, Address], tuple[float, str]] = OrderedDict()

    def user(self, client: Address | None, server: Address | None) -> str:
        """The user id of the process that connected from ``client``; "" where it is unknown.

        Known on Linux, of processes in this network namespace.
        """
        if not client or not server or not client[0].startswith("127."):
            return ""
        key, now = (client, server), time.monotonic()
        cached = self._cache.get(key)
        if cached and now - cached[0] < _CACHE_SECONDS:
            return cached[1]
        found = self._look_up(client, server)
        if found:
            self._cache[key] = (now, found)
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return found

    def _look_up(self, client: Address, server: Address) -> str:
        try:
            table = self._table.read_bytes()
            row = b" %s %s " % (_written(client), _written(server))
        except OSError:
            return ""
        start = table.find(row)
        if start < 0:
            return ""
        line = table[table.rfind(b"\n", 0, start) + 1 :].partition(b"\n")[0]
        return line.split()[_UID].decode()


def _written(address: Address) -> bytes:
    """An address as the table has it: the host in the machine's byte order."""
    host = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return b"%08X:%04X" % (host, address[1])
