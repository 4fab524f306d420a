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


@pytest.mark.skipif(sys.byteorder != "little", reason="the rows below are of such a machine")
def test_the_row_of_the_client_counts_and_not_that_of_the_server(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    row = "  0: 0100007F:%04X 0100007F:%04X 01 00000000:00000000 00:00000000 00000000 %5d 0 1\n"
    table.write_text("head\n" + row % (4200, 50000, 7) + row % (50000, 4200, 1001))

    assert PeerUsers(table).user(("127.0.0.1", 50000), ("127.0.0.1", 4200)) == "1001"
