"""How far shards are, in words and metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.errors import RunFailedError
from tasks.batch_inference import predicting
from tasks.batch_inference.failure_reasons import FailureReason
from tasks.batch_inference.part_results import PartFiles, PartWriter
from tasks.batch_inference.planning import Plan, PlannedFile
from tasks.batch_inference.predicting import Folders, Progress, ProgressRecorder
from tasks.batch_inference.shard import ShardStatus
from tasks.batch_inference.splitting import FilePart


@pytest.mark.parametrize("told", ["ValueError: no number", "It hangs.", "Why?"])
def test_what_a_library_says_is_a_sentence_before_the_hint(told: str) -> None:
    message = predicting.failed(told, "LOG").message

    assert message == f"The batch inference failed: {told}{'.' * told.endswith('number')}"


def test_progress_is_told_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(predicting.time, "monotonic", lambda: now[0])
    statuses: list[ShardStatus] = []
    told: list[str] = []
    metrics: dict[str, list[float]] = {}
    reasons: list[list[FailureReason]] = []
    outputs: list[list[str]] = []
    recorder = ProgressRecorder(
        lambda name, value: metrics.setdefault(name, []).append(value),
        lambda found: reasons.append(list(found)),
        lambda found: outputs.append(list(found)),
    )
    progress = Progress(lambda: statuses, 4000, 100, told.append, recorder)

    progress.report()
    now[0] += 10
    late = FailureReason("late", 60, 0, 7)
    wrong = FailureReason("wrong", 40, 1, 3)
    statuses += [
        ShardStatus(900, 100, 500, reasons=[late, wrong]), ShardStatus(500, 0, outputs=["a", "b"]),
    ]  # fmt: skip
    progress.record_outputs()
    progress.report()
    now[0] += 10
    statuses[:] = [ShardStatus(3900, 100, 500, reasons=[late, wrong])]
    progress.report()

    assert told == [
        "0 of 4,000 records: 0 records/s",
        "1,500 of 4,000 records, 100 failed: 100 records/s, about 25 s left",
        "4,000 of 4,000 records, 100 failed: 175 records/s",
    ]
    assert metrics == {
        "records": [0, 1500, 4000], "failed": [0, 100, 100], "records_left": [4000, 2500, 0],
        "records_per_second": [0, 100, 175],
    }  # fmt: skip
    assert reasons == [[late, wrong]]  # once, as they did not change
    assert outputs == [["a", "b"]]


def test_what_earlier_attempts_have_done_counts_its_whole_parts(tmp_path: Path) -> None:
    plan = Plan([PlannedFile("a", 9, 0, 0, [FilePart(0, 1, 0, 3)] * 3)])
    folders = Folders(tmp_path)
    folders.parts.mkdir()
    for number, failed in ((0, 1), (2, 2)):
        with PartWriter(PartFiles(folders.parts, number)) as writer:
            writer.begin(FilePart(0, 1, 0, 1 + failed))
            writer.write([0], None, {"y": np.array([1])})
            for row in range(failed):
                writer.fail(row + 1, None, "late")
            writer.commit({})
    writer = PartWriter(PartFiles(folders.parts, 1))
    writer.begin(FilePart(0, 1, 0, 1))
    writer.fail(0, None, "was cut off")

    done = predicting.done(plan, folders)

    assert done == ShardStatus(2, 3, 5, reasons=[FailureReason("late", 3, 0, 1)])
    predicting.check_failed([done], 3, "the log")
    told = r"3 records failed, more than max_failed \(2\), 3 of them with: late"
    with pytest.raises(RunFailedError, match=told) as caught:
        predicting.check_failed([done], 2, "the log")
    assert caught.value.code == "TooManyRecordsFailed"
    assert "modelyard runs update RUN -p max_failed=N" in str(caught.value.hint)


def test_failed_records_count_for_the_whole_run() -> None:
    late, wrong = FailureReason("late", 6, 0, 7), FailureReason("wrong", 5, 1, 3)
    statuses = [
        ShardStatus(10, 6, reasons=[late]),
        ShardStatus(10, 5, reasons=[wrong]),
    ]
    recorder = ProgressRecorder(lambda *_: None, lambda _: None, lambda _: None)

    assert not Progress(lambda: statuses, 99, 11, print, recorder).too_many_failed()
    assert Progress(lambda: statuses, 99, 10, print, recorder).too_many_failed() == (
        "11 records failed, more than max_failed (10), 6 of them with: late"
    )
