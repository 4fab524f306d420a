"""Parts that are fetched alone are read as those of the whole file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from infra import storage
from tasks.batch_inference import input_files, part_input, planning, reading, splitting
from tasks.batch_inference.part_input import PartInput
from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.reading import Batch
from tests.tasks.batch_inference.remote_input import remote_folder

ROWS = 2000
TABLE = pa.table({"x": range(ROWS), "name": [f"n{at % 7}, \n{at}" for at in range(ROWS)]})


def _write(folder: Path, input_format: str) -> None:
    folder.mkdir()
    path = folder / f"a.{input_format}"
    if input_format == "csv":
        pyarrow.csv.write_csv(TABLE, path)
    elif input_format == "parquet":
        pyarrow.parquet.write_table(TABLE, path, row_group_size=300)
    elif input_format == "json":
        path.write_text(json.dumps(TABLE.to_pylist()))
    else:
        path.write_text("".join(json.dumps(one) + "\n" for one in TABLE.to_pylist()))


def _records(input_format: str, planned: PlannedPiece) -> list[Any]:
    found = []
    for batch in reading.read(planned.path, input_format, planned.part, 64, types=planned.types):
        assert isinstance(batch, Batch)
        columns = {name: np.asarray(one).tolist() for name, one in batch.columns.items()}
        found += list(zip(batch.rows, columns["x"], columns["name"], strict=True))
    return found


@pytest.mark.parametrize("is_single", [False, True])
@pytest.mark.parametrize("input_format", ["jsonl", "json", "csv", "parquet"])
def test_each_part_is_fetched_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, input_format: str, is_single: bool
) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 512)
    _write(tmp_path / "in", input_format)
    uri = str(tmp_path / "in" / f"a.{input_format}" if is_single else tmp_path / "in")
    place = Path(uri)
    files = input_files.select(storage.store(uri), (), ())
    plan = planning.make(place, files, input_format, lambda: None, 5000)
    monkeypatch.setattr(part_input.storage, "store", remote_folder)
    (tmp_path / "fetched").mkdir()
    source = PartInput(uri, input_format, part_input.outlines(plan), tmp_path / "fetched")

    found: list[Any] = []
    for part, whole in zip(plan.pieces(Path()), plan.pieces(place), strict=True):
        brought = source.bring(part)
        found += _records(input_format, brought)
        assert found[-1] == _records(input_format, whole)[-1]
        assert len(list((tmp_path / "fetched").iterdir())) == 1
        source.drop(brought)

    assert len(plan.pieces(Path())) > 2
    assert [(row, x) for row, x, _ in found] == [(at, at) for at in range(ROWS)]
    assert [name for *_, name in found] == TABLE["name"].to_pylist()
    assert not list((tmp_path / "fetched").iterdir())


def test_a_file_that_has_become_shorter_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "in", "jsonl")
    files = input_files.select(storage.store(str(tmp_path / "in")), (), ())
    plan = planning.make(tmp_path / "in", files, "jsonl", lambda: None)
    monkeypatch.setattr(part_input.storage, "store", remote_folder)
    source = PartInput(str(tmp_path / "in"), "jsonl", part_input.outlines(plan), tmp_path)
    (tmp_path / "in" / "a.jsonl").write_text("")

    with pytest.raises(OSError, match=r"a\.jsonl is shorter than it was"):
        source.bring(plan.pieces(Path())[0])
