"""Requests that arrive together are predicted together, and told apart again."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any

import httpx
import numpy as np
import pytest
from modelyard_runtime.frames import Columns, objects
from modelyard_runtime.models.base import Model
from modelyard_runtime.server.batching import Batcher, BatchLimits
from modelyard_runtime.server.hosted_model import HostedModel, ModelLoadError
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


@pytest.mark.parametrize(
    "raised",
    [StopIteration(), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("x"), EOFError()],
    ids=repr,
)
async def test_whatever_a_model_raises_is_answered_and_ends_nothing(
    raised: BaseException, opened: Open
) -> None:
    def fail(inputs: Columns) -> Columns:
        if (inputs["x"] == 1).any():
            raise raised
        return inputs

    client = await opened(served.hosted("m", fail))

    async def infer(value: float) -> httpx.Response:
        tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [value]}
        return await client.post("/v2/models/m/infer", json={"inputs": [tensor]})

    found = await asyncio.gather(*map(infer, (0, 1, 2, 3)))

    assert [one.status_code for one in found] == [200, 500, 200, 200]
    assert type(raised).__name__ in found[1].json()["error"]


@pytest.mark.parametrize("raised", [SystemExit(3), StopIteration(), RuntimeError("no")], ids=repr)
async def test_whatever_a_model_raises_while_it_loads_is_the_reason(raised: BaseException) -> None:
    def load() -> Model:
        raise raised

    model = HostedModel("m", "1", load, BatchLimits())
    with pytest.raises(ModelLoadError, match=type(raised).__name__):
        await model.load()
    with pytest.raises(RequestRefused, match=rf"failed to load: {type(raised).__name__}"):
        model.check_ready()


@pytest.mark.parametrize(
    ("steady", "given", "is_thread"),
    [
        (True, rows(1), False), (True, rows(*[1.0] * 50), True), (False, rows(1), True),
        (True, {"x": objects(["text"])}, True),
    ],
)  # fmt: skip
async def test_only_what_is_sure_to_be_quick_runs_on_the_event_loop(
    steady: bool, given: Columns, is_thread: bool
) -> None:
    names: list[str] = []

    def model(columns: Columns) -> Columns:
        names.append(threading.current_thread().name)
        return {"y": columns["x"]}

    batcher = Batcher(model, BatchLimits(), steady=steady)
    for _ in range(20):
        await batcher.predict(rows(1))
    names.clear()
    await batcher.predict(given)

    assert names == ["predict"] if is_thread else names != ["predict"]
    batcher.close()


async def test_a_model_that_hangs_is_not_ready_until_it_answers_again(opened: Open) -> None:
    go = threading.Event()

    def hang(inputs: Columns) -> Columns:
        go.wait(30)
        return inputs

    client = await opened(served.hosted("m", hang, seconds=0.05))
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}

    async def status(path: str) -> int:
        if path.endswith("infer"):
            return (await client.post(path, json={"inputs": [tensor]})).status_code
        return (await client.get(path)).status_code

    paths = ["/v2/models/m/infer", "/v2/health/ready", "/v2/models/m/ready", "/v2/models/m/infer"]
    hung = [await status(path) for path in paths]
    live = await status("/v2/health/live")
    go.set()
    while await status("/v2/health/ready") != 200:
        await asyncio.sleep(0.01)

    assert hung == [504, 503, 503, 503]
    assert live == 200
    assert await status("/v2/models/m/infer") == 200


async def test_who_gives_up_leaves_the_queue() -> None:
    batcher = Batcher(Recorder(0.3), BatchLimits(rows=1, waiting=2))
    first = asyncio.ensure_future(ask(batcher, 0.0))
    await asyncio.sleep(0.05)
    waiting = [asyncio.ensure_future(ask(batcher, 1.0)) for _ in range(2)]
    await asyncio.sleep(0)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert await asyncio.gather(ask(batcher, 2.0), ask(batcher, 3.0)) == [[4.0], [6.0]]
    assert await first == [0.0]
    batcher.close()


async def test_all_batches_of_a_request_have_its_time(opened: Open) -> None:
    client = await opened(served.hosted("slow", served.slow, seconds=0.5))
    forms = [{"x": 0.2}, {"x": 0.2, "y": 1}] * 4  # predicted one after another
    answer = await client.post("/v1/models/slow:predict", json={"instances": forms})

    assert answer.status_code == 504
    assert "did not answer within 0.5 s" in answer.json()["error"]
