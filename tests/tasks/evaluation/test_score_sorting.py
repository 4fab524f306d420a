"""Scores are sorted in files: in memory that does not grow, on a disk that may be full."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infra import storage
from infra.errors import DiskFullError
from tasks.evaluation import score_sorting
from tasks.evaluation.score_sorting import ScoreSorter

ROWS, CLASSES = 1000, 4


def add_rows(sorter: ScoreSorter, rows: int = ROWS) -> Any:
    random = np.random.default_rng(3)
    scores = random.random((rows, CLASSES))
    targets = random.integers(0, CLASSES, rows)
    for part in np.array_split(np.arange(rows), 20):
        sorter.add(scores[part], targets[part], np.zeros(len(part), np.int64))
    return scores, targets


def joined(blocks: Any) -> tuple[Any, Any]:
    scores, codes = zip(*blocks, strict=True)
    return np.concatenate(scores), np.concatenate(codes)


def test_all_classes_are_merged_of_a_run_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    merge = score_sorting._merge

    def watched(given: Any, *others: Any) -> Any:
        runs.append(len(given))
        return merge(given, *others)

    monkeypatch.setattr(score_sorting, "_merge", watched)
    monkeypatch.setattr(score_sorting, "_LEAST_BLOCK", 7)
    monkeypatch.setattr(score_sorting, "_MERGED", 50)
    with ScoreSorter(CLASSES, tmp_path, lambda: None, held=50 * CLASSES) as sorter:
        scores, targets = add_rows(sorter)
        for number in [*range(CLASSES), 1]:
            found, codes = joined(sorter.merged([number]))
            order = np.argsort(-scores[:, number])
            assert np.array_equal(found, scores[order, number])
            assert np.array_equal(codes, targets[order] == number)
        found, codes = joined(sorter.merged(range(CLASSES)))
        assert np.array_equal(found, np.sort(scores.ravel())[::-1])
        assert codes.sum() == ROWS
        files = [path.name for path in tmp_path.iterdir()]
        assert len(files) == 2 * CLASSES

    assert runs == [20] * CLASSES + [1, CLASSES]
    assert not [*tmp_path.iterdir()]


def test_a_disk_without_room_for_all_rows_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 9 * ROWS * (CLASSES + 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with ScoreSorter(CLASSES, tmp_path, lambda: None, ROWS, held=CLASSES) as sorter:
        add_rows(sorter)
    with ScoreSorter(CLASSES, tmp_path, lambda: None, ROWS + 1, held=CLASSES) as sorter:
        with pytest.raises(DiskFullError, match=r"The scores of 1,001 records .* are free") as one:
            add_rows(sorter)
        assert not [*tmp_path.iterdir()]
    assert "a retry keeps the predictions" in str(one.value.hint)


def test_a_disk_that_is_full_in_the_middle_is_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScoreSorter(CLASSES, tmp_path, lambda: None, held=CLASSES) as sorter:
        (tmp_path / "class-2.scores").symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left") as raised:
            add_rows(sorter)

    assert raised.value.errno == errno.ENOSPC
    assert storage.is_disk_full(raised.value)
    assert not [*tmp_path.iterdir()]
