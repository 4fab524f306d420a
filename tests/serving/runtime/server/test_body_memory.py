"""The memory that the bodies of all requests have together."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest
from modelyard_runtime.server.body_memory import BodyMemory
from modelyard_runtime.server.refusals import RequestRefused
from modelyard_runtime.server.request_bodies import RequestLimits

from tests.serving.runtime.server import served
from tests.serving.runtime.server.conftest import Open

pytestmark = pytest.mark.anyio


def test_what_is_held_is_given_back_once() -> None:
    memory = BodyMemory(10)
    with memory.hold() as held:
        held.add(4)
        held.add(6)
        with pytest.raises(RequestRefused) as refused, memory.hold() as other:
            other.add(1)
        assert memory.held == 10
    held.release()

    assert memory.held == 0
    assert refused.value.status == 503


def test_a_request_that_is_over_holds_nothing_more() -> None:
    memory = BodyMemory(10)
    held = memory.hold()
    held.release()
    with pytest.raises(RequestRefused):
        held.add(1)

    assert memory.held == 0


async def test_bodies_are_held_until_they_are_answered(opened: Open) -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [0.3]}
    limits = RequestLimits(memory=BodyMemory(300))
    client = await opened(served.hosted("slow", served.slow), limits=limits)

    async def ask(**more: Any) -> int:
        body: dict[str, Any] = {"inputs": [tensor], "id": "i" * 100}
        return (await client.post("/v2/models/slow/infer", **(more or {"json": body}))).status_code

    codes = await asyncio.gather(ask(), ask())
    packed = gzip.compress(b" " * 1000)
    bomb = await ask(content=packed, headers={"content-encoding": "gzip"})

    assert sorted(codes) == [200, 503]
    assert bomb == 503
    assert limits.memory.held == 0
    assert await ask() == 200
