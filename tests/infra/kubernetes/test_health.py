from __future__ import annotations

import asyncio

import pytest

from infra.kubernetes import health


async def _ask(request: bytes, *, well: bool) -> bytes:
    async with await health.serve("127.0.0.1", 0, lambda: well) as server:
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


@pytest.mark.parametrize(
    ("path", "well", "status"),
    [("/healthz", True, b"200 OK"), ("/healthz", False, b"503"), ("/", True, b"404")],
)
def test_answers(path: str, well: bool, status: bytes) -> None:
    answer = asyncio.run(_ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), well=well))

    assert answer.startswith(b"HTTP/1.1 " + status)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_nonsense_is_no_harm() -> None:
    assert asyncio.run(_ask(b"\r\n", well=True)).startswith(b"HTTP/1.1 404")
