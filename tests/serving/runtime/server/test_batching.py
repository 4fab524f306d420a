"""Requests that arrive together are predicted together, and told apart again."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any

import numpy as np
import pytest
from modelyard_runtime.frames import Columns
from modelyard_runtime.server.batching import Batcher, BatchLimits
from modelyard_runtime.server.refusals import RequestRefused

from tests.serving.runtime.server import served
from tests.serving.runtime.server.conftest import Open

pytestmark = pytest.mark.anyio


def rows(*values: float) -> Columns:
    return {"x": np.array(values)}


class Recorder:
    """A model that doubles its rows, keeps what it was asked, and does not take -1."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.batches: list[list[float]] = []
        self._seconds = seconds

    def __call__(self, columns: Columns) -> Columns:
        self.batches.append(columns["x"].tolist())
        time.sleep(self._seconds)
        if (columns["x"] == -1).any():
            raise ValueError("poison")
        return {"y": 2 * columns["x"]}


async def ask(batcher: Batcher, *values: float) -> list[float]:
    outputs = await batcher.predict(rows(*values))
    return list(outputs["y"].tolist())


async def test_what_arrives_meanwhile_is_predicted_together() -> None:
    model = Recorder()
    batcher = Batcher(model, BatchLimits())
    first = asyncio.ensure_future(ask(batcher, 0.0))
    await asyncio.sleep(0.002)
    found = await asyncio.gather(first, *(ask(batcher, at, at + 0.5) for at in range(1, 9)))

    assert found == [[0.0], *([2.0 * at, 2.0 * at + 1] for at in range(1, 9))]
    assert len(model.batches) == 2
    batcher.close()


async def test_a_request_that_the_model_does_not_take_fails_alone() -> None:
    batcher = Batcher(Recorder(), BatchLimits())
    asked = [ask(batcher, value) for value in (0.0, 1.0, -1.0, 2.0)]
    found = await asyncio.gather(*asked, return_exceptions=True)

    assert [one for one in found if isinstance(one, list)] == [[0.0], [2.0], [4.0]]
    assert str(found[2]) == "poison"
    batcher.close()


async def test_requests_of_other_forms_do_not_share_a_batch() -> None:
    seen: list[Any] = []

    def model(columns: Columns) -> Columns:
        seen.append({name: (one.dtype, one.shape[1:]) for name, one in columns.items()})
        time.sleep(0.01)
        return dict(columns)

    batcher = Batcher(model, BatchLimits())
    given: list[Columns] = [
        {"x": np.zeros((2, 3))}, {"x": np.zeros((1, 4))}, {"x": np.zeros((1, 3), np.float32)},
        {"z": np.zeros((1, 3))}, {"x": np.zeros((2, 3)), "z": np.zeros(1)}, {"x": np.zeros(())},
    ]  # fmt: skip
    found = await asyncio.gather(*map(batcher.predict, given))

    assert len(seen) == len(given)
    for one, outputs in zip(given, found, strict=True):
        assert {name: array.shape for name, array in outputs.items()} == {
            name: array.shape for name, array in one.items()
        }
    batcher.close()


async def test_a_model_whose_outputs_are_not_row_by_row_is_asked_alone() -> None:
    batcher = Batcher(lambda columns: {"y": columns["x"].sum(keepdims=True)}, BatchLimits())
    found = await asyncio.gather(*(ask(batcher, 1.0, float(at)) for at in range(5)))

    assert found == [[1.0 + at] for at in range(5)]
    batcher.close()


async def test_too_many_that_wait_are_refused_at_once() -> None:
    go = threading.Event()

    def model(columns: Columns) -> Columns:
        go.wait(10)
        return {"y": columns["x"]}

    batcher = Batcher(model, BatchLimits(waiting=3))
    asked = [asyncio.ensure_future(ask(batcher, float(at))) for at in range(10)]
    await asyncio.sleep(0.05)
    refused = [one for one in asked if one.done()]
    go.set()
    found = await asyncio.gather(*asked, return_exceptions=True)

    assert len(refused) >= 6
    for one in refused:
        error = one.exception()
        assert isinstance(error, RequestRefused)
        assert error.status == 429
    served_ = [one for one in found if isinstance(one, list)]
    assert len(served_) == 10 - len(refused)
    batcher.close()


async def test_a_request_that_takes_too_long_is_refused_and_not_predicted_later() -> None:
    model = Recorder(0.3)
    batcher = Batcher(model, BatchLimits(seconds=0.1))
    asked = [asyncio.ensure_future(ask(batcher, 0.0))]
    await asyncio.sleep(0.01)
    asked.append(asyncio.ensure_future(ask(batcher, 1.0)))
    found = await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.sleep(0.4)

    assert [one.status for one in found if isinstance(one, RequestRefused)] == [504, 504]
    assert model.batches == [[0.0]]
    batcher.close()


async def test_many_at_once_get_what_they_have_asked_for(opened: Open, iris: Any) -> None:
    client = await opened(served.hosted("iris", iris))
    chance = random.Random(3)
    given = [
        [[chance.uniform(0, 8) for _ in range(4)] for _ in range(chance.randint(1, 5))]
        for _ in range(64)
    ]

    async def infer(number: int) -> dict[str, Any]:
        tensor = {
            "name": "x", "datatype": "FP64", "data": given[number],
            "shape": [len(given[number]), 4],
        }  # fmt: skip
        asked = {"id": str(number), "inputs": [tensor]}
        response = await client.post("/v2/models/iris/infer", json=asked)
        return dict(response.json())

    found = await asyncio.gather(*map(infer, range(64)))

    for number, answer in enumerate(found):
        expected = iris.infer({"input": np.array(given[number])})["prediction"]
        assert answer["id"] == str(number)
        assert answer["outputs"][0]["data"] == expected.tolist()
