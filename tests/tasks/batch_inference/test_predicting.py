"""How far shards are, in words and metrics."""

from __future__ import annotations

import pytest

from tasks.batch_inference import predicting
from tasks.batch_inference.failure_reasons import FailureReason
from tasks.batch_inference.predicting import Progress, ProgressRecorder
from tasks.batch_inference.shard import ShardStatus


def test_progress_is_told_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(predicting.time, "monotonic", lambda: now[0])
    statuses: list[ShardStatus] = []
    told: list[str] = []
    metrics: dict[str, list[float]] = {}
    reasons: list[list[FailureReason]] = []
    recorder = ProgressRecorder(
        lambda name, value: metrics.setdefault(name, []).append(value),
        lambda found: reasons.append(list(found)),
    )
    progress = Progress(lambda: statuses, 4000, 100, told.append, recorder)

    progress.report()
    now[0] += 10
    late = FailureReason("late", 60, 0, 7)
    wrong = FailureReason("wrong", 40, 1, 3)
    statuses += [ShardStatus(900, 100, 500, reasons=[late, wrong]), ShardStatus(500, 0)]
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


def test_failed_records_count_for_the_whole_run() -> None:
    late, wrong = FailureReason("late", 6, 0, 7), FailureReason("wrong", 5, 1, 3)
    statuses = [
        ShardStatus(10, 6, reasons=[late]),
        ShardStatus(10, 5, reasons=[wrong]),
    ]
    recorder = ProgressRecorder(lambda *_: None, lambda _: None)

    assert not Progress(lambda: statuses, 99, 11, print, recorder).too_many_failed()
    assert Progress(lambda: statuses, 99, 10, print, recorder).too_many_failed() == (
        "11 records failed, more than max_failed (10), 6 of them with: late"
    )
