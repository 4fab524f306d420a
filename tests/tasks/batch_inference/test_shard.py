"""A shard predicts with a real predictor: whatever the model does, each record has one end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_runtime.frames import Columns

from tasks.batch_inference import part_reading, shard, splitting
from tasks.batch_inference.failure_reasons import FailureReason
from tasks.batch_inference.part_results import PartFiles, texts
from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.predictor_client import (
    PredictionError,
    PredictorClient,
    PredictorCommand,
    PredictorStartError,
    command_line,
)
from tasks.batch_inference.shard import (
    Shard,
    ShardFailedError,
    ShardSpec,
    ShardStatus,
    prefetched,
    read_spec,
    read_status,
    write_spec,
)
from tasks.batch_inference.splitting import split

# What a record's field "do" makes the model do; others predict twice "x".
CODE = """
import os, time
import numpy as np
def load(model_dir, parameters):
    with open(model_dir + "/loads", "a") as file:
        file.write("x")
    if parameters.get("load") == "fails":
        raise RuntimeError("no weights")
    if parameters.get("load") == "dies once" and open(model_dir + "/loads").read() == "x":
        os.kill(os.getpid(), 9)
    if parameters.get("load") == "hangs":
        time.sleep(60)
def predict(inputs, model):
    todo = set(inputs["do"].tolist())
    if "raise" in todo:
        raise ValueError("too hot")
    if "exit" in todo:
        os._exit(3)
    if "kill" in todo:
        os.kill(os.getpid(), 9)
    if "hang" in todo:
        time.sleep(60)
    if "lie" in todo:
        for descriptor in range(3, 9):
            try:
                os.write(descriptor, b"Loading checkpoint shards: 100%")
            except OSError:
                pass
    if "more" in todo:
        return {"prediction": np.zeros(len(inputs["x"]) + 1)}
    if "nan" in todo:
        return {"prediction": np.full(len(inputs["x"]), np.nan)}
    return {"prediction": 2 * inputs["x"]}
"""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 64)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., ShardSpec]:
    def made(records: list[Any], *, parameters: str = "load=", **fields: Any) -> ShardSpec:
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "predictor.py").write_text(CODE)
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
        (tmp_path / "parts").mkdir(exist_ok=True)
        parts = split(tmp_path / "a.jsonl", "jsonl", fields.pop("part_bytes", 1000))
        command = PredictorCommand(
            command_line(sys.executable, tmp_path / "model"), dict(os.environ),
            fields.pop("load_seconds", 60.0), dict([parameters.split("=", 1)]),
        )  # fmt: skip
        usual: dict[str, Any] = {"batch_size": 4, "seconds": 20.0, "most_failed": 100}
        return ShardSpec(
            [PlannedPiece(at, tmp_path / "a.jsonl", part) for at, part in enumerate(parts)],
            tmp_path / "parts", tmp_path / "status.json", "jsonl", command, **usual | fields,
        )  # fmt: skip

    return made


def _run(spec: ShardSpec) -> ShardStatus:
    with PredictorClient(spec.predictor) as client:
        Shard(spec, client).run()
    status = read_status(spec.status)
    assert status is not None
    return status


def _results(spec: ShardSpec) -> tuple[dict[int, Any], dict[int, str]]:
    """What was predicted, and the errors, by row."""
    predicted: dict[int, Any] = {}
    errors: dict[int, str] = {}
    for planned in spec.pieces:
        files = PartFiles(spec.folder, planned.number)
        for line in files.results.read_text().splitlines():
            one = json.loads(line)
            assert one["row"] not in predicted
            predicted[one["row"]] = one["prediction"]
        for line in files.errors.read_text().splitlines():
            one = json.loads(line)
            assert one["row"] not in errors
            errors[one["row"]] = one["error"]
    return predicted, errors


def _records(count: int, **todo: str) -> list[Any]:
    named = {int(at.removeprefix("r")): what for at, what in todo.items()}
    return [{"x": at, "do": named.get(at, "")} for at in range(count)]


def test_records_are_predicted_in_their_order(make: Callable[..., ShardSpec]) -> None:
    spec = make(_records(30), part_bytes=200)

    told = _run(spec)

    assert _results(spec) == ({at: 2 * at for at in range(30)}, {})
    assert len(spec.pieces) > 2
    assert told == ShardStatus(rows=30)
    assert told.outputs == ["prediction"]
    summary = PartFiles(spec.folder, 0).read_summary()
    assert summary is not None
    assert summary.statistics["outputs"] == ["prediction"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("raise", "ValueError: too hot"),
        ("exit", "The predictor ended with the exit code 3."),
        ("kill", "The predictor was ended by SIGKILL. It may have run out of memory."),
        (
            "lie",
            "The predictor sent what is no answer: A header of 1684107084 bytes is no frame's.",
        ),
        ("more", "The model was given 1 rows and returned 2 values of prediction."),
    ],
)
def test_a_record_that_fails_does_not_take_others_with_it(
    make: Callable[..., ShardSpec], what: str, message: str
) -> None:
    spec = make(_records(10, r2=what, r5=what))

    told = _run(spec)

    predicted, errors = _results(spec)
    assert predicted == {at: 2 * at for at in range(10) if at not in (2, 5)}
    assert errors == {2: message, 5: message}
    reason = FailureReason(message, 2, 0, 2)
    assert told == ShardStatus(rows=8, failed=2, reasons=[reason])


def test_a_record_that_hangs_fails_by_the_limit(make: Callable[..., ShardSpec]) -> None:
    spec = make(_records(5, r1="hang"), seconds=2.0, batch_size=5)

    _run(spec)

    predicted, errors = _results(spec)
    assert sorted(predicted) == [0, 2, 3, 4]
    assert errors == {1: "The model did not answer within 2 seconds."}


def test_a_model_that_hangs_on_every_record_is_given_up(make: Callable[..., ShardSpec]) -> None:
    spec = make([{"x": at, "do": "hang"} for at in range(30)], seconds=0.3, batch_size=30)

    with pytest.raises(ShardFailedError, match=r"10 records .* the model hangs"):
        _run(spec)
    assert PartFiles(spec.folder, 0).read_summary() is None


def test_a_model_that_fails_on_every_record_is_given_up(make: Callable[..., ShardSpec]) -> None:
    spec = make([{"x": at, "do": "raise"} for at in range(30)], most_failed=7)

    told = r"8 records failed, more than max_failed \(7\), 8 of them with: V"
    with pytest.raises(ShardFailedError, match=told):
        _run(spec)


def test_malformed_records_and_keys(make: Callable[..., ShardSpec], tmp_path: Path) -> None:
    records = [{"x": at, "do": "raise" if at == 1 else "", "id": f"k{at}"} for at in range(4)]
    spec = make(records, key="id")
    lines = [json.dumps(one) for one in records]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines[:3], "{", lines[3]]))
    (part,) = split(tmp_path / "a.jsonl", "jsonl", 1000)
    spec.pieces[:] = [PlannedPiece(0, tmp_path / "a.jsonl", part)]

    _run(spec)

    found = [json.loads(one) for one in (spec.folder / "00000000.results.jsonl").open()]
    faults = [json.loads(one) for one in (spec.folder / "00000000.errors.jsonl").open()]
    assert found == [{"row": at, "key": f"k{at}", "prediction": 2 * at} for at in (0, 2)] + [
        {"row": 4, "key": "k3", "prediction": 6}
    ]
    assert {(one["row"], one.get("key")) for one in faults} == {(1, "k1"), (3, None)}


def test_fields_are_kept_from_the_model(make: Callable[..., ShardSpec], tmp_path: Path) -> None:
    records = [{"x": at, "do": "", "id": at, "truth": 1} for at in range(3)]
    spec = make(records, key="id", drop_fields=("truth", "none"))
    code = CODE.replace("todo = set", "assert sorted(inputs) == ['do', 'x']\n    todo = set")
    (tmp_path / "model" / "predictor.py").write_text(code)

    _run(spec)

    assert _results(spec) == ({0: 0, 1: 2, 2: 4}, {})


def test_a_retry_goes_on_behind_the_parts_that_are_done(make: Callable[..., ShardSpec]) -> None:
    spec = make(_records(30), part_bytes=200)
    _run(spec)
    PartFiles(spec.folder, 1).summary.unlink()
    before = {path: path.stat().st_mtime_ns for path in spec.folder.glob("*.json")}

    told = _run(spec)

    assert (told.rows, told.failed) == (30, 0)
    assert 0 < told.earlier < 30
    assert _results(spec)[0] == {at: 2 * at for at in range(30)}
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_predictions_that_are_no_numbers_are_counted(make: Callable[..., ShardSpec]) -> None:
    spec = make(_records(4, r0="nan"), batch_size=1)

    _run(spec)

    summary = PartFiles(spec.folder, 0).read_summary()
    assert summary is not None
    assert summary.statistics["missing"] == 1
    assert _results(spec)[0] == {0: None, 1: 2, 2: 4, 3: 6}


@pytest.mark.parametrize(
    ("load", "seconds", "message"),
    [("fails", 600.0, "no weights"), ("hangs", 2.0, "within 2 sec")],
)
def test_a_model_that_does_not_load_is_told(
    make: Callable[..., ShardSpec], load: str, seconds: float, message: str
) -> None:
    spec = make(_records(4), parameters=f"load={load}", load_seconds=seconds)

    with pytest.raises(PredictorStartError, match=f"The model does not load: .*{message}"):
        _run(spec)


def test_a_predictor_that_is_killed_while_it_loads_is_started_once_more(
    make: Callable[..., ShardSpec],
) -> None:
    spec = make(_records(4), parameters="load=dies once")

    assert _run(spec) == ShardStatus(rows=4)


def test_a_specification_is_read_as_it_was_written(
    make: Callable[..., ShardSpec], tmp_path: Path
) -> None:
    spec = make(_records(3), key="x")

    write_spec(spec, tmp_path / "spec.json")

    assert read_spec(tmp_path / "spec.json") == spec


def test_items_are_fetched_ahead_until_nobody_wants_them() -> None:
    fetched: list[int] = []

    def numbers() -> Iterator[int]:
        for at in range(1000):
            fetched.append(at)
            yield at

    with prefetched(numbers(), 2) as ahead:
        assert [next(ahead) for _ in range(3)] == [0, 1, 2]

    assert len(fetched) < 10


def test_what_the_fetching_raises_is_raised() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with prefetched(broken(), 2) as ahead:
        assert next(ahead) == 1
        with pytest.raises(OSError, match="gone"):
            next(ahead)


def test_one_row_of_numbers_is_written_as_json() -> None:
    assert texts(np.array([0.1, np.nan], dtype=np.float32)) == [b"0.1", b"null"]
    assert texts(np.array([[1.0, np.inf], [2.0, 3.0]])) == [b"[1.0,null]", b"[2.0,3.0]"]
    assert texts(np.zeros((2, 0))) == [b"[]", b"[]"]
    assert texts(np.array([1, 2], dtype=np.int8)) == [b"1", b"2"]
    assert texts(np.array([True, False])) == [b"true", b"false"]
    assert texts(np.ones((1, 2, 2))) == [b"[[1.0,1.0],[1.0,1.0]]"]
    assert texts(np.ones((2, 3)).T[:, :1]) == [b"[1.0]"] * 3


def test_what_loading_takes_is_no_batchs(
    make: Callable[..., ShardSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(shard.time, "monotonic", lambda: now[0])

    class Slow:
        def prepare(self) -> None:
            now[0] += 60

        def infer(self, columns: Columns, seconds: float) -> Columns:
            now[0] += 2
            return {"prediction": columns["x"]}

    spec = make(_records(8))
    Shard(spec, Slow()).run()  # type: ignore[arg-type]

    summary = PartFiles(spec.folder, 0).read_summary()
    assert summary is not None
    assert summary.statistics["seconds"] == [2.0, 2.0]


class FieldCounter:
    """Predicts how many fields a record has; fails where ``bad`` is one of them."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def prepare(self) -> None:
        """It is ready."""

    def infer(self, columns: Columns, seconds: float) -> Columns:
        count = len(next(iter(columns.values())))
        self.sizes.append(count)
        if "bad" in columns:
            raise PredictionError("bad")
        return {"prediction": np.full(count, len(columns))}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "ab", "ac", "bad", "a", "malformed"]), min_size=1, max_size=40),
    st.sampled_from([1, 3, 7]), st.sampled_from([1, 8, 100]), st.sampled_from([10, 1000]),
)  # fmt: skip
def test_results_are_in_the_order_of_records_of_any_forms(
    tmp_path_factory: pytest.TempPathFactory,
    forms: list[str],
    batch_size: int,
    most_ahead: int,
    part_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("forms")
    lines = [
        "{" if form == "malformed" else json.dumps(dict.fromkeys(["bad", "c"], 1))
        if form == "bad" else json.dumps(dict.fromkeys(form, 1))
        for form in forms
    ]  # fmt: skip
    (folder / "a.jsonl").write_text("\n".join(lines))
    parts = list(split(folder / "a.jsonl", "jsonl", part_bytes))
    spec = ShardSpec(
        [PlannedPiece(at, folder / "a.jsonl", part) for at, part in enumerate(parts)],
        folder, folder / "status.json", "jsonl", cast("Any", None), batch_size, 9, 99,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(part_reading, "_MOST_AHEAD", most_ahead)
        Shard(spec, cast("Any", FieldCounter())).run()

    results, errors = _results(spec)
    good = {at: len(form) for at, form in enumerate(forms) if form not in {"bad", "malformed"}}
    assert list(results.items()) == list(good.items())
    assert list(errors) == [at for at in range(len(forms)) if at not in good]


def test_records_of_a_form_share_batches_with_others_between_them(
    make: Callable[..., ShardSpec],
) -> None:
    forms = [{"x": 1}, {"x": 1, "y": 2}, {"z": 3}, {"y": 2, "z": 3}]
    spec = make([forms[at * at % 7 % 4] for at in range(1000)], batch_size=100, part_bytes=10**6)
    model = FieldCounter()

    Shard(spec, cast("Any", model)).run()

    assert sum(model.sizes) == 1000
    assert len(model.sizes) <= 1000 // 100 + len(forms)


def test_a_value_that_is_no_number_leaves_its_neighbours_numbers(
    make: Callable[..., ShardSpec],
) -> None:
    class Strict:
        def prepare(self) -> None:
            """It is ready."""

        def infer(self, columns: Columns, seconds: float) -> Columns:
            if any(one.dtype == object for one in columns.values()):
                raise PredictionError("no numbers")
            return {"prediction": columns["x"]}

    for odd in ("unknown", None):
        records = [{"x": odd if at == 7 else at} for at in range(20)]
        spec = make(records, batch_size=20)
        spec.folder.joinpath("00000000.json").unlink(missing_ok=True)
        Shard(spec, Strict()).run()  # type: ignore[arg-type]

        predicted, errors = _results(spec)
        wanted = {at: at for at in range(20) if at != 7}
        assert {row: one for row, one in predicted.items() if one is not None} == wanted
        assert errors == ({7: "no numbers"} if odd else {})
