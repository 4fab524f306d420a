from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from infra.door.peer import PeerUsers

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")


@linux
def test_the_user_of_a_connection_is_known() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            found = PeerUsers().user(client.getsockname(), listener.getsockname())

    assert found == str(os.getuid())


def test_one_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text("  sl  local_address rem_address   st\n")
    peers = PeerUsers(table)

    assert peers.user(("127.0.0.1", 1), ("127.0.0.1", 2)) == ""
    assert peers.user(None, ("127.0.0.1", 2)) == ""
    assert peers.user(("10.0.0.1", 1), ("10.0.0.2", 2)) == ""
    assert PeerUsers(tmp_path / "none").user(("127.0.0.1", 1), ("127.0.0.1", 2)) == ""


@linux
def test_a_closed_connection_has_no_user() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        with listener.accept()[0] as served:
            address = client.getsockname()
            client.close()
            assert served.recv(1) == b""  # the kernel has it as root's now

            assert PeerUsers().user(address, listener.getsockname()) == ""


_ROW = "  0: 0100007F:%04X 0100007F:%04X %s 00000000:00000000 00:00000000 00000000 %5d 0 %d\n"
little_endian = pytest.mark.skipif(
    sys.byteorder != "little", reason="of such a machine are the rows"
)


@little_endian
@pytest.mark.parametrize(
    ("state", "inode"), [("04", 1), ("05", 0), ("06", 0), ("08", 1), ("01", 0)]
)
def test_only_an_open_established_socket_counts(tmp_path: Path, state: str, inode: int) -> None:
    table = tmp_path / "tcp"
    table.write_text("head\n" + _ROW % (50000, 4200, state, 0, inode))

    assert PeerUsers(table).user(("127.0.0.1", 50000), ("127.0.0.1", 4200)) == ""


@little_endian
def test_the_next_connection_from_the_same_port_is_looked_up_anew(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    peers, server = PeerUsers(table), ("127.0.0.1", 4200)
    table.write_text("head\n" + _ROW % (50000, 4200, "01", 1001, 1))
    first = ("127.0.0.1", int("50000"))  # an object of its own, as each connection has
    assert peers.user(first, server) == "1001"
    table.write_text("head\n" + _ROW % (50000, 4200, "01", 65534, 2))

    assert peers.user(first, server) == "1001"
    assert peers.user(("127.0.0.1", int("50000")), server) == "65534"


@pytest.mark.skipif(sys.byteorder != "little", reason="the rows below are of such a machine")
def test_the_row_of_the_client_counts_and_not_that_of_the_server(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    row = "  0: 0100007F:%04X 0100007F:%04X 01 00000000:00000000 00:00000000 00000000 %5d 0 1\n"
    table.write_text("head\n" + row % (4200, 50000, 7) + row % (50000, 4200, 1001))

    assert PeerUsers(table).user(("127.0.0.1", 50000), ("127.0.0.1", 4200)) == "1001"
