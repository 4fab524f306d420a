"""What the door costs per request, by how the request is let in, against none at all.

The server behind it answers at once; both are called in this process, without a network.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.machine import Calm
from benchmarks.results import Comparison
from infra.door.credential import Credential
from infra.door.door import AccessPolicy, Door
from infra.door.sessions import Sessions

REPETITIONS = 5
_REQUESTS = 20_000
# As many headers as Chromium and Prefect's client send.
_HEADERS = [(b"host", b"127.0.0.1:4200"), (b"accept", b"application/json")] + [
    (f"x-header-{number}".encode(), b"value") for number in range(10)
]


async def _answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    assert message.get("status", 200) == 200


def _microseconds(app: ASGIApp, scope: dict[str, Any]) -> float:
    async def ask() -> float:
        began = time.perf_counter()
        for _ in range(_REQUESTS):
            await app(scope, _receive, _send)
        return (time.perf_counter() - began) / _REQUESTS * 1e6

    return asyncio.run(ask())


def _scope(client: Any, server: Any, **headers: str) -> dict[str, Any]:
    sent = [*_HEADERS, *((name.encode(), value.encode()) for name, value in headers.items())]
    return {
        "type": "http", "method": "POST", "path": "/api/flow_runs/filter",
        "raw_path": b"/api/flow_runs/filter", "query_string": b"", "headers": sent,
        "client": client, "server": server,
    }  # fmt: skip


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Send requests ``repetitions`` times each way."""
    credential = Credential("s" * 43)
    measured: dict[str, list[float]] = {"credential": [], "cookie": [], "none": []}
    with (
        tempfile.TemporaryDirectory() as spent,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as caller,
    ):
        sessions = Sessions(credential, Path(spent))
        door = Door(_answer, credential, sessions, AccessPolicy("prefect"))
        ends = (caller.getsockname(), listener.getsockname())
        users = door.peers.user(*ends)
        cookies = "; ".join(one.partition(";")[0] for one in sessions.cookies(users))
        for _ in range(repetitions):
            calm.wait()
            owner = _scope(*ends, authorization=credential.basic)
            measured["none"].append(_microseconds(_answer, owner))
            measured["credential"].append(_microseconds(door, owner))
            measured["cookie"].append(_microseconds(door, _scope(*ends, cookie=cookies)))
    return [
        Comparison(
            f"a request with the {kind}", "µs", measured[kind], measured["none"], "no door",
            "100 µs", 100.0,
        )
        for kind in ("credential", "cookie")
    ]  # fmt: skip
