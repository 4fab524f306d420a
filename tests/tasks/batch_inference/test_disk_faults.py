"""Files that go away while they are read, and disks that are full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from modelyard_runtime.frames import Columns

from infra import storage
from infra.errors import DiskFullError
from infra.workloads.exit_status import ExitCause, ExitStatus
from tasks.batch_inference import input_files, output_files, planning, predicting, shard, splitting
from tasks.batch_inference.part_results import PartFiles, PartWriter
from tasks.batch_inference.planning import Plan
from tasks.batch_inference.predictor_client import PredictorClient, PredictorCommand, command_line
from tasks.batch_inference.shard import Shard, ShardSpec, ShardStatus, read_status

RECORDS = 100
FULL = Path("/dev/full")


class _Twice:
    def prepare(self) -> None:
        pass

    def infer(self, columns: Columns, _: float) -> Columns:
        return {"prediction": 2 * columns["x"]}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(splitting, "_BLOCK", 64)
    for name in ("in", "parts", "out", "model"):
        (tmp_path / name).mkdir()
    lines = [json.dumps({"x": at}) + "\n" for at in range(RECORDS)]
    (tmp_path / "in" / "a.jsonl").write_text("".join(lines))
    files = input_files.select(storage.store(str(tmp_path / "in")), (), ())
    return planning.make(tmp_path / "in", files, "jsonl", lambda: None, 200)


def _spec(plan: Plan, folder: Path) -> ShardSpec:
    command = PredictorCommand(command_line(sys.executable, folder / "model"), dict(os.environ))
    return ShardSpec(
        plan.pieces(folder / "in"),
        folder / "parts",
        folder / "status",
        "jsonl",
        command,
        10,
        60,
        9,
    )


def _run(spec: ShardSpec) -> ShardStatus:
    Shard(spec, cast("PredictorClient", _Twice())).run()
    return cast("ShardStatus", read_status(spec.status))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: os.truncate(path, 500), "it is shorter than it was"),
        (lambda path: shutil.rmtree(path.parent), "No such file or directory"),
    ],
)
def test_a_file_that_goes_away_is_named_and_a_retry_goes_on_when_it_is_back(
    plan: Plan, tmp_path: Path, fault: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / "in" / "a.jsonl"
    data, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    spec = _spec(plan, tmp_path)
    _run(spec)
    for part in range(2, plan.part_count):
        PartFiles(tmp_path / "parts", part).summary.unlink()
    fault(path)

    with pytest.raises(OSError, match=rf"in/a\.jsonl cannot be read: {message}"):
        _run(spec)
    done = [part for part in range(plan.part_count) if _is_done(tmp_path, part)]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=times)
    planning.check_unchanged(plan, tmp_path / "in")
    status = _run(spec)

    assert 2 <= len(done) < plan.part_count
    assert (status.rows, status.failed) == (RECORDS, 0)
    assert status.earlier == sum(plan.files[0].parts[part].rows for part in done)


def _is_done(folder: Path, part: int) -> bool:
    return PartFiles(folder / "parts", part).read_summary() is not None


@pytest.mark.skipif(not FULL.exists(), reason="has no device that is always full")
def test_a_shard_without_room_for_results_says_so_and_a_retry_goes_on(
    plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "model" / "predictor.py").write_text(
        "def load(*_): ...\ndef predict(inputs, _): return {'prediction': 2 * inputs['x']}\n"
    )
    spec = _spec(plan, tmp_path)
    shard.write_spec(spec, tmp_path / "spec.json")
    command = [sys.executable, "-m", "tasks.batch_inference.shard", tmp_path / "spec.json"]
    full = PartFiles(spec.folder, 1).results
    full.symlink_to(FULL)

    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    full.unlink()
    error = predicting.failure(
        ExitStatus(ended.returncode, cause=ExitCause.EXITED), [], str(tmp_path / "a.log")
    )

    assert isinstance(error, DiskFullError)
    assert str(tmp_path) in error.message
    assert "No space left on device" in ended.stderr
    assert [_is_done(tmp_path, part) for part in (0, 1, 2)] == [True, False, False]
    assert _run(spec).rows == RECORDS


@pytest.mark.skipif(not FULL.exists(), reason="has no device that is always full")
@pytest.mark.parametrize("name", ["a.jsonl", "errors.jsonl", "manifest.json"])
def test_an_output_without_room_is_none(plan: Plan, tmp_path: Path, name: str) -> None:
    _run(_spec(plan, tmp_path))
    with PartWriter(PartFiles(tmp_path / "parts", 0)) as writer:
        writer.begin(plan.files[0].parts[0])
        for row in range(plan.files[0].parts[0].rows):
            writer.fail(row, None, "unlucky")
        writer.commit({})
    (tmp_path / "out" / name).symlink_to(FULL)

    with pytest.raises(OSError, match="No space left") as raised:
        output_files.put_together(
            tmp_path / "out", plan, tmp_path / "parts", "jsonl", {}, lambda: None
        )

    assert storage.is_disk_full(raised.value)
    assert name == "manifest.json" or not (tmp_path / "out" / "manifest.json").exists()


def test_an_empty_file_of_errors_may_be_lost(plan: Plan, tmp_path: Path) -> None:
    _run(_spec(plan, tmp_path))
    PartFiles(tmp_path / "parts", 0).errors.unlink()

    manifest = output_files.put_together(
        tmp_path / "out", plan, tmp_path / "parts", "jsonl", {}, lambda: None
    ).manifest

    assert (manifest["predicted"], manifest["errors"]) == (RECORDS, None)


def test_a_plan_without_room_is_none(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.partial").symlink_to(FULL)

    with pytest.raises(OSError, match="No space left"):
        planning.write(plan, tmp_path / "plan.json")

    assert planning.read(tmp_path / "plan.json") is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-9, "pod 1: the process was killed: the machine may have run out of memory"),
        (-15, "pod 1: the process was ended by SIGTERM"),
        (5, "pod 1: the process exited with code 5"),
    ],
)
def test_the_end_of_a_shard_without_words_is_told(code: int, message: str) -> None:
    error = predicting.failure(ExitStatus(code, process="pod 1"), [], "a.log")

    assert error is not None
    assert error.message == f"The batch inference failed: {message}."
