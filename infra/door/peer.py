"""Lookup of the operating system's user at the other end of a loopback connection."""

from __future__ import annotations

import socket
import sys
from collections import OrderedDict
from pathlib import Path

Address = tuple[str, int]

_TABLE = Path("/proc/net/tcp")
_STATE, _UID, _INODE = 3, 7, 9  # its columns there
_ESTABLISHED = b"01"
_CACHED = 512


class PeerUsers:
    """Lookup of connections' users, once each while both ends are open.

    A closed socket, which the kernel lists with user 0, names no user. What was found belongs to
    the connection and not to its addresses, which the next connection may have: the server gives
    each connection an address object of its own.
    """

    def __init__(self, table: Path = _TABLE) -> None:
        self._table = table
        self._cache: OrderedDict[int, tuple[Address, str]] = OrderedDict()

    def user(self, client: Address | None, server: Address | None) -> str:
        """The user id of the process that connected from ``client``; "" where it is unknown.

        Known on Linux, of processes in this network namespace.

        Args:
            client: The client's address: the object that the server made for this connection.
            server: The server's own address.
        """
        if not client or not server or not client[0].startswith("127."):
            return ""
        held, user = self._cache.get(id(client), (None, ""))
        if held is client:  # held here, so that no other object gets its identity
            return user
        user = self._look_up(client, server)
        if user:
            self._cache[id(client)] = (client, user)
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return user

    def _look_up(self, client: Address, server: Address) -> str:
        try:
            table = self._table.read_bytes()
            addresses = b" %s %s " % (_written(client), _written(server))
        except OSError:
            return ""
        start = table.find(addresses + _ESTABLISHED + b" ")
        if start < 0:
            return ""
        line = table[table.rfind(b"\n", 0, start) + 1 :].partition(b"\n")[0]
        columns = line.split()
        is_open = columns[_STATE] == _ESTABLISHED and columns[_INODE] != b"0"
        return columns[_UID].decode() if is_open else ""


def _written(address: Address) -> bytes:
    """Format an address as in the table: the host in the machine's byte order."""
    host = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return b"%08X:%04X" % (host, address[1])
