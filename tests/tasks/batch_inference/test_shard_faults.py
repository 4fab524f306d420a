"""What a shard asks for again when its model fails, hangs or dies, and when it gives up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from modelyard_runtime.frames import Array, Columns, objects

from tasks.batch_inference.failure_reasons import FailureReason
from tasks.batch_inference.part_results import PartFiles
from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.predictor_client import PredictionError, PredictorClient
from tasks.batch_inference.shard import (
    Shard,
    ShardFailedError,
    ShardSpec,
    ShardStatus,
    read_status,
)
from tasks.batch_inference.splitting import split

LATE = PredictionError("late", is_late=True)
LOST = PredictionError("killed", is_lost=True)
REFUSED = PredictionError("refused")


class _Model:
    """Predicts twice ``x``, unless ``fault`` of the records has an error."""

    def __init__(self, fault: Callable[[list[int]], PredictionError | None]) -> None:
        self.asked: list[int] = []  # how many records, of each request
        self.errors: list[PredictionError] = []
        self._fault = fault

    def infer(self, columns: Columns, _: float) -> Columns:
        rows = columns["x"].tolist()
        self.asked.append(len(rows))
        if error := self._fault(rows):
            self.errors.append(error)
            raise error
        return self.predicted(columns["x"])

    def prepare(self) -> None:
        pass

    def predicted(self, values: Array) -> Columns:
        return {"prediction": 2 * values}


def _shard(folder: Path, model: _Model, records: int, batch_size: int) -> tuple[Shard, ShardSpec]:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"x": at}) + "\n" for at in range(records)))
    parts = [PlannedPiece(0, path, part) for part in split(path, "jsonl", 2**20)]
    spec = ShardSpec(
        parts, folder, folder / "status", "jsonl", cast("Any", None), batch_size, 5, 10**6
    )
    return Shard(spec, cast("PredictorClient", model)), spec


def _results(spec: ShardSpec) -> tuple[list[Any], list[Any]]:
    files = PartFiles(spec.folder, 0)
    return tuple(  # type: ignore[return-value]
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in (files.results, files.errors)
    )


def _expected(records: int, bad: set[int]) -> list[Any]:
    return [{"row": at, "prediction": 2 * at} for at in range(records) if at not in bad]


@pytest.mark.parametrize("error", [REFUSED, LATE, LOST])
@pytest.mark.parametrize("at", [0, 617, 999])
def test_one_bad_record_of_a_batch_costs_few_failures_and_requests(
    tmp_path: Path, error: PredictionError, at: int
) -> None:
    model = _Model(lambda rows: error if at in rows else None)
    shard, spec = _shard(tmp_path, model, 1000, 1000)

    shard.run()

    assert _results(spec) == (_expected(1000, {at}), [{"row": at, "error": str(error)}])
    assert len(model.asked) <= 70
    assert len(model.errors) == 3 + error.is_lost  # which is tried once more


def test_what_is_predicted_does_not_depend_on_how_often_batches_fail(tmp_path: Path) -> None:
    bad = {*range(0, 300, 7), *range(200, 240), 299}
    model = _Model(lambda rows: REFUSED if bad & {*rows} else None)
    shard, spec = _shard(tmp_path, model, 300, 64)

    shard.run()

    errors = [{"row": at, "error": "refused"} for at in sorted(bad)]
    assert _results(spec) == (_expected(300, bad), errors)
    reasons = [FailureReason("refused", len(bad), 0, 0)]
    assert read_status(spec.status) == ShardStatus(300 - len(bad), len(bad), reasons=reasons)


@pytest.mark.parametrize(
    ("error", "failures", "message"),
    [
        (LATE, 12, "10 records one after another had no prediction within 5 seconds each"),
        (LOST, 22, "10 records one after another ended the model, the last one with: killed"),
    ],
)
def test_a_model_that_answers_nothing_is_given_up(
    tmp_path: Path, error: PredictionError, failures: int, message: str
) -> None:
    model = _Model(lambda _: error)
    shard, _ = _shard(tmp_path, model, 5000, 1000)

    with pytest.raises(ShardFailedError, match=message):
        shard.run()
    assert len(model.asked) == failures


def test_records_that_end_the_model_now_and_then_are_isolated(tmp_path: Path) -> None:
    bad = {*range(0, 200, 10)}
    model = _Model(lambda rows: LOST if bad & {*rows} else None)
    shard, spec = _shard(tmp_path, model, 200, 20)

    shard.run()

    assert _results(spec)[0] == _expected(200, bad)


@pytest.mark.parametrize("error", [REFUSED, LATE, LOST])
def test_batches_that_are_too_large_become_smaller(
    tmp_path: Path, error: PredictionError, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _Model(lambda rows: error if len(rows) > 30 else None)
    shard, spec = _shard(tmp_path, model, 5000, 100)

    shard.run()

    assert _results(spec) == (_expected(5000, set()), [])
    assert len(model.errors) == 4  # two of 100, two of 50
    assert model.asked[-1] == 25
    assert (
        "Batches of 50 records fail, and none of the records does alone" in capsys.readouterr().err
    )


def test_a_kill_now_and_then_does_not_make_batches_smaller(tmp_path: Path) -> None:
    kills = iter([LOST, *[None] * 9] * 100)
    model = _Model(lambda rows: next(kills) if len(rows) == 100 else None)
    shard, spec = _shard(tmp_path, model, 4000, 100)

    shard.run()

    assert _results(spec) == (_expected(4000, set()), [])
    assert model.asked.count(100) == 40


class _Odd(_Model):
    """Predicts what cannot be written at ``x`` 3."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__(lambda _: None)
        self._name, self._value = name, value

    def predicted(self, values: Array) -> Columns:
        found = [self._value if one == 3 else one for one in values.tolist()]
        names = ["prediction", self._name] if 3 in values else ["prediction"]
        return {name: objects(found if name == self._name else values.tolist()) for name in names}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("row", 1, "The model returned row, which every result has: give it another name."),
        ("y", 1j, "The model returned what cannot be stored: y: a complex has no JSON."),
        ("y", b"\xff", "The model returned what cannot be stored: y: bytes that are not UTF-8"),
        ("y", {1, 2}, "The model returned what cannot be stored: y: a set has no JSON."),
    ],
)
def test_what_has_no_json_is_an_error_of_its_record(
    tmp_path: Path, name: str, value: Any, message: str
) -> None:
    shard, spec = _shard(tmp_path, _Odd(name, value), 8, 4)

    shard.run()

    predicted, errors = _results(spec)
    assert [one["row"] for one in predicted] == [0, 1, 2, 4, 5, 6, 7]
    assert [one["row"] for one in errors] == [3]
    assert errors[0]["error"].startswith(message)


def test_integers_of_any_size_and_lone_surrogates_are_written(tmp_path: Path) -> None:
    value = [2**100, "\ud800", float("nan"), {"a": np.float32("inf"), "b": b"text"}]
    shard, spec = _shard(tmp_path, _Odd("50%", value), 4, 4)

    shard.run()

    found = _results(spec)[0][3]
    assert found["50%"] == [2**100, "\ud800", None, {"a": None, "b": "text"}]
