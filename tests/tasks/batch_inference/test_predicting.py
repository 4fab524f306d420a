"""How far shards are, in words and metrics."""

from __future__ import annotations

import pytest

from tasks.batch_inference import predicting
from tasks.batch_inference.predicting import Progress
from tasks.batch_inference.shard import ShardStatus


def test_progress_is_told_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(predicting.time, "monotonic", lambda: now[0])
    statuses: list[ShardStatus] = []
    told: list[str] = []
    metrics: dict[str, list[float]] = {}
    progress = Progress(
        lambda: statuses, 4000, told.append,
        lambda name, value: metrics.setdefault(name, []).append(value),
    )  # fmt: skip

    progress.report()
    now[0] += 10
    statuses += [ShardStatus(900, 100, 500), ShardStatus(500, 0)]
    progress.report()
    now[0] += 10
    statuses[:] = [ShardStatus(3900, 100, 500)]
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
