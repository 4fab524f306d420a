"""HTTP over real sockets: slow, large, odd and hostile requests end, and others are served."""

from __future__ import annotations

import gzip
import json
import random
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.processes import eventually

MODEL = """
def load(model_dir, parameters): pass
def predict(inputs, model): return inputs
"""
BODY = b'{"instances": [1]}'
PREDICT = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: localhost\r\n"
WHOLE = PREDICT + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
BOMB = gzip.compress(b" " * 2**26)
ALIVE = b'{"live":true}'


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server prints, its access log among it."""
    return tmp_path_factory.mktemp("http") / "log"


@pytest.fixture(scope="module")
def address(log: Path) -> Iterator[tuple[str, int]]:
    folder = log.parent
    (folder / "predictor.py").write_text(MODEL)
    command = [
        sys.executable, "-m", "modelyard_runtime.server", "--model-dir", str(folder), "--guarded",
        "--name", "m", "--port", "0", "--head-timeout", "1", "--body-timeout", "1",
        "--body-mib", "1", "--access-log", "json",
    ]  # fmt: skip
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file)

    def port() -> int:
        text = log.read_text()
        if "is ready" not in text:
            return 0
        return int(text.partition("http://127.0.0.1:")[2].partition("\n")[0])

    try:
        yield "127.0.0.1", int(eventually(port, "it is ready"))
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


@pytest.fixture
def connection(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=20) as made:
        yield made


def rest(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    found = b""
    while part := received(connection):
        found += part
    return found


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next answer, whose body has a length."""
    file = connection.makefile("rb", buffering=0)
    status = int(file.readline().split()[1])
    headers: dict[str, str] = {}
    while line := file.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name] = value
    body = b""
    while len(body) < int(headers.get("content-length", "0")):
        body += file.read(int(headers["content-length"]) - len(body))
    return status, headers, body


def check_alive(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=20) as other:
        other.sendall(WHOLE)
        assert answer(other)[::2] == (200, b'{"predictions":[1]}')


def test_slow_heads_end_and_hold_up_nobody(address: tuple[str, int]) -> None:
    with ExitStack() as held:
        slow = [
            held.enter_context(socket.create_connection(address, timeout=20)) for _ in range(100)
        ]
        for at, one in enumerate(slow):
            one.sendall(LIVE[: 4 * (at % 4)])
        check_alive(address)
        told = [rest(one) for one in slow]

    assert set(told[::4]) == {b""}
    assert {one.split()[1] for at, one in enumerate(told) if at % 4} == {b"408"}


@pytest.mark.parametrize("before", [b"", WHOLE], ids=["first", "second"])
def test_a_head_that_trickles_ends_as_well(before: bytes, connection: socket.socket) -> None:
    connection.sendall(before)
    if before:
        assert answer(connection)[0] == 200
    for byte in LIVE[:-2]:
        try:
            connection.sendall(bytes([byte]))
        except OSError:
            break
        time.sleep(0.05)
    assert b"took too long" in rest(connection)


def test_a_body_that_trickles_ends(address: tuple[str, int], connection: socket.socket) -> None:
    connection.sendall(PREDICT + b"Content-Length: 1000\r\n\r\n{")
    check_alive(address)
    status, headers, body = answer(connection)

    assert (status, headers["connection"]) == (408, "close")
    assert json.loads(body)["error"]
    assert rest(connection) == b""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: " + b"a" * 10_000_000, 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100 + b"\r\n", 200),
    ],
    ids=["line", "header", "headers", "endless", "many"],
)
def test_heads_are_of_a_length(
    head: bytes, status: int, address: tuple[str, int], connection: socket.socket
) -> None:
    try:
        connection.sendall(head)
        found = answer(connection)
    except (ConnectionError, IndexError):  # it was closed before all was sent
        assert status == 431
    else:
        assert found[0] == status
        assert status == 200 or "65536 bytes" in json.loads(found[2])["error"]
    check_alive(address)


def test_a_body_beyond_its_limit_is_refused_and_the_connection_goes_on(
    connection: socket.socket,
) -> None:
    big = 2**20 + 1
    connection.sendall(PREDICT + b"Content-Length: %d\r\n\r\n" % big)
    assert answer(connection)[0] == 413
    connection.sendall(b" " * big + WHOLE)
    assert answer(connection)[0] == 200

    connection.sendall(PREDICT + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"%x\r\n%s\r\n" % (2**16, b" " * 2**16)
    connection.sendall(chunk * 17)
    assert answer(connection)[0] == 413
    connection.sendall(b"0\r\n\r\n" + WHOLE)
    assert answer(connection)[0] == 200


def test_a_body_that_was_refused_and_does_not_end_is_not_read_on(
    address: tuple[str, int], connection: socket.socket
) -> None:
    connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n")
    assert answer(connection)[0] == 404
    assert rest(connection) == b""


def test_a_bomb_is_refused(connection: socket.socket) -> None:
    headers = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB)
    connection.sendall(PREDICT + headers + BOMB)
    assert answer(connection)[0] == 413


@pytest.mark.parametrize("cut", [1, 7, 64])
def test_chunks_of_any_size_are_one_body(cut: int, connection: socket.socket) -> None:
    connection.sendall(PREDICT + b"Transfer-Encoding: chunked\r\n\r\n")
    parts = [BODY[at : at + cut] for at in range(0, len(BODY), cut)]
    for part in parts:
        connection.sendall(b"%x;a=b\r\n%s\r\n" % (len(part), part))
    connection.sendall(b"0\r\nTrailer: x\r\n\r\n" + LIVE)

    assert answer(connection)[::2] == (200, b'{"predictions":[1]}')
    assert answer(connection)[2] == ALIVE


MALFORMED = re.compile(
    rb'^modelyard_requests_total{protocol="http",method="malformed",model="",code="(\d+)"} (\d+)',
    re.MULTILINE,
)


def malformed(address: tuple[str, int]) -> Counter[int]:
    """How many requests were refused with which status before anything of them was known."""
    with socket.create_connection(address, timeout=20) as other:
        other.sendall(LIVE.replace(b"/v2/health/live", b"/metrics"))
        found = MALFORMED.findall(answer(other)[2])
    return Counter({int(status): int(count) for status, count in found})


FORGED = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nx-request-id: FORGED\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b'\x16{"level": "FORGED"}\r\n\r\n', 400), (b"GET /FORGED HTTP/9\r\n\r\n", 400),
        (FORGED, 400), (b"GET /FORGED HTTP/1.1\r\nA: " + b"a" * 70_000, 431),
        (b"GET /FORGED HTTP/1.1\r\n", 408), (b"BREW FORGED", 400),
    ],
    ids=["TLS", "version", "hosts", "long", "slow", "method"],
)  # fmt: skip
def test_what_is_no_http_is_counted_and_logged_without_its_words(
    sent: bytes, status: int, address: tuple[str, int], log: Path
) -> None:
    before = malformed(address)
    with socket.create_connection(address, timeout=20) as one:
        one.sendall(sent)
        found, headers, body = answer(one)

    identifier = headers["x-request-id"]
    eventually(lambda: identifier in log.read_text(), "it is logged")
    (line,) = [one for one in log.read_text().splitlines() if identifier in one]
    logged = json.loads(line)
    assert found == status
    assert malformed(address) == before + Counter([status])
    assert {name: logged[name] for name in ("status", "client", "method", "path")} == {
        "status": status, "client": "127.0.0.1", "method": "", "path": "",
    }  # fmt: skip
    assert logged["response_bytes"] == len(body)
    assert "FORGED" not in log.read_text()


def test_a_body_that_is_malformed_is_one_request(
    address: tuple[str, int], connection: socket.socket, log: Path
) -> None:
    before = malformed(address)
    headers = b"x-request-id: odd-chunks\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(PREDICT + headers)
    check_alive(address)  # the application has the request by then
    connection.sendall(b"zz\r\n")
    assert b" 400 " in rest(connection)
    eventually(lambda: "odd-chunks" in log.read_text(), "it is logged")
    (line,) = [one for one in log.read_text().splitlines() if "odd-chunks" in one]

    assert json.loads(line)["path"] == "/v1/models/m:predict"
    assert json.loads(line)["status"] == 400
    assert malformed(address) == before


SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: -1\r\n",
        b"Content-Length: 0x5\r\n", b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n", b" folded: a\r\n", b"A: b\r\n c\r\n",
        b"A\0b: c\r\n", b"A: b\0c\r\n", b"A: b\rc: d\r\n", b"A b: c\r\n", b": c\r\n",
        b"Host: other\r\n",
    ],
    ids=repr,
)  # fmt: skip
def test_what_two_parsers_would_read_in_two_ways_is_refused(
    headers: bytes, address: tuple[str, int], connection: socket.socket
) -> None:
    connection.sendall(PREDICT + headers + b"\r\n0\r\n\r\n" + SMUGGLED)
    found = rest(connection)

    assert found.startswith(b"HTTP/1.1 400")
    assert found.count(b"HTTP/1.1") == 1
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]
    check_alive(address)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/1.1", 200), (b"GET http://localhost/v2/health/live HTTP/1.1", 200),
        (b"GET //v2/health/live HTTP/1.1", 404), (b"GET /v2//health/live HTTP/1.1", 404),
        (b"GET /v2/health/../health/live HTTP/1.1", 404), (b"GET /v2/%2e%2e/v2 HTTP/1.1", 404),
        (b"GET /v2/models/m%00 HTTP/1.1", 404), (b"GET /v2/models%2Fm HTTP/1.1", 404),
        (b"GET /v2/models/%c0%ad HTTP/1.1", 404), (b"GET /v2/models/M HTTP/1.1", 404),
        (b"GET /v2/models/m/versions/2 HTTP/1.1", 404), (b"GET /v3 HTTP/1.1", 404),
        (b"GET /v2?a=b HTTP/1.1", 200), (b"OPTIONS /v2 HTTP/1.1", 405),
        (b"TRACE / HTTP/1.1", 405), (b"DELETE /v2/models/m HTTP/1.1", 405),
        (b"BREW / HTTP/1.1", 400), (b"GET / HTTP/1.9", 400),
        (b"GET /\xff HTTP/1.1", 400), (b"GET /a b HTTP/1.1", 400), (b"GET", 400),
        (b"CONNECT a:80 HTTP/1.1", 400), (b"PRI * HTTP/2.0", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    ],
    ids=repr,
)  # fmt: skip
def test_targets_and_methods(
    line: bytes, status: int, address: tuple[str, int], connection: socket.socket
) -> None:
    connection.sendall(line + b"\r\nHost: localhost\r\n\r\n")
    found, _, body = answer(connection)

    assert found == status
    if status >= 400:
        assert json.loads(body)["error"]
    check_alive(address)


def test_a_head_has_no_body_and_the_connection_goes_on(connection: socket.socket) -> None:
    connection.sendall(LIVE.replace(b"GET", b"HEAD"))
    found = connection.recv(65536)
    connection.sendall(LIVE)

    assert b"\r\ncontent-length: 13\r\n" in found
    assert found.endswith(b"\r\n\r\n")
    assert answer(connection)[2] == ALIVE


def test_http_1_0_closes(connection: socket.socket) -> None:
    connection.sendall(b"GET /v2/health/live HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert rest(connection).endswith(ALIVE)


@pytest.mark.parametrize("headers", [b"", b"Host: a\r\n", b"Host:\r\n", b"Origin: http://a\r\n"])
def test_only_this_machine_s_names_are_answered(headers: bytes, connection: socket.socket) -> None:
    host = b"Host: localhost\r\n" if b"Origin" in headers else b""
    connection.sendall(b"GET /v2 HTTP/1.1\r\n" + host + headers + b"\r\n")
    status, _, body = answer(connection)

    assert status == (400 if not headers else 403)
    assert json.loads(body)["error"]


def test_a_client_that_asks_before_it_sends_is_told_to(connection: socket.socket) -> None:
    head = PREDICT + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % len(BODY))
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(BODY)
    assert answer(connection)[0] == 200

    connection.sendall(head % 2**30)
    assert answer(connection)[0] == 413
    assert rest(connection) == b""


def test_an_upgrade_is_not_made_and_the_request_answered(connection: socket.socket) -> None:
    for protocol in (b"websocket", b"h2c"):
        upgrade = b"Connection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Version: 13\r\n\r\n"
        connection.sendall(LIVE[:-2] + upgrade % protocol)
        assert answer(connection)[2] == ALIVE
        length = b"Content-Length: %d\r\n" % len(BODY)
        connection.sendall(PREDICT + length + upgrade % protocol + BODY)
        assert answer(connection)[::2] == (200, b'{"predictions":[1]}')


def test_requests_in_one_packet_are_answered_in_their_order(connection: socket.socket) -> None:
    def body(number: int) -> bytes:
        text = b'{"instances": [%d]}' % number
        return PREDICT + b"Content-Length: %d\r\n\r\n%s" % (len(text), text)

    connection.sendall(b"".join(body(number) for number in range(50)))
    found = [json.loads(answer(connection)[2]) for _ in range(50)]

    assert found == [{"predictions": [number]} for number in range(50)]


def test_random_bytes_end_or_are_refused(address: tuple[str, int]) -> None:
    chance = random.Random(5)
    statuses: list[Any] = []
    for _ in range(150):
        data = bytearray(WHOLE)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with socket.create_connection(address, timeout=20) as other:
            other.sendall(data)
            other.shutdown(socket.SHUT_WR)
            found = rest(other)
        statuses += [found.split()[1]] if found else [b""]

    assert set(statuses) <= {b"", b"200", b"400", b"403", b"404", b"405", b"408", b"415"}
    assert statuses.count(b"400") > 20
    check_alive(address)
