"""Columns of CSV are what ``pandas.read_csv`` makes of the whole file, wherever it is cut."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelyard_runtime.frames import Columns

from tasks.batch_inference import planning, reading, splitting
from tasks.batch_inference.csv_columns import ColumnTypes, CsvType
from tasks.batch_inference.input_files import InputFile
from tasks.batch_inference.reading import Batch
from tasks.batch_inference.shard import Shard, ShardSpec
from tests.soaking import examples

_MISSING = st.sampled_from(["", "NA", "nan", "NaN", "null", "None", "N/A", "-nan", "<NA>", "#N/A"])
_CELLS = {
    "whole": st.integers(-(2**63), 2**63 - 1).map(str),
    "digit": st.sampled_from("01234"),
    "written": st.sampled_from(["007", "+5", " 5", "5 ", "\t5", "-0", "00", "+0012", "5\n"]),
    "unsigned": st.integers(0, 2**64 - 1).map(str),
    "float": st.floats(allow_nan=False).map(repr),
    "rough": st.sampled_from(
        ["1.", ".5", "+1.5", "1e5", "1E+05", "-.5e-3", "inf", "-Infinity", "INF", " 2.5 ", "1e400"]
    ),
    "truth": st.sampled_from(["true", "false", "True", "False", "TRUE", "falSE"]),
    "grade": st.sampled_from("ABC"),
    "odd": st.sampled_from(
        ["0x1F", "0X1", "NAN", "1e", "1_000", "1 2", "-", ".", " true", " ", " NA", "1,5",
         "nan(1)", "\u0661", "--1", "2020-01-02", "12:30", "é", 'a"b', "e5", "0x1p3", "infin"]
    ),
    "text": st.text("ab\",\n'0 ", max_size=4),
}  # fmt: skip


@st.composite
def _columns(draw: st.DrawFn) -> list[list[str]]:
    """Columns of equally many cells, each of one to three sorts."""
    count = draw(st.integers(1, 14))
    columns = []
    for _ in range(draw(st.integers(1, 4))):
        sorts = draw(st.lists(st.sampled_from(sorted(_CELLS)), min_size=1, max_size=3))
        cells = st.one_of(*(_CELLS[sort] for sort in sorts))
        if draw(st.booleans()):
            cells |= _MISSING
        columns.append(draw(st.lists(cells, min_size=count, max_size=count)))
    return columns


def _is_beyond_64_bits(cells: list[str], values: Any) -> bool:
    """Whether integers are so large that pandas and Modelyard differ; see the test of these."""
    wholes = [int(one) for one in cells if re.fullmatch(r"\s*[+-]?[0-9]+\s*", one)]
    return values.dtype.kind != "u" and any(not -(2**63) <= one < 2**63 for one in wholes)


def _write(path: Path, columns: list[list[str]], quoting: int, end: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
        writer.writerow([*(f"c{at}" for at in range(len(columns))), "last"])
        writer.writerows([*cells, "0"] for cells in zip(*columns, strict=True))


def _read(path: Path, part_bytes: int, batch_size: int) -> dict[str, list[np.ndarray]]:
    """The arrays of each column."""
    types = ColumnTypes()
    found: dict[str, list[np.ndarray]] = {}
    for part in list(splitting.split(path, "csv", part_bytes, types)):
        for one in reading.read(path, "csv", part, batch_size, types=types.letters):
            assert isinstance(one, Batch)
            for name, values in one.columns.items():
                found.setdefault(name, []).append(values)
    return found


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    _columns(), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([3, 16, 2**20]), st.sampled_from([1, 40, 2**20]), st.sampled_from([1, 3, 100]),
)  # fmt: skip
def test_columns_are_those_of_pandas(
    tmp_path_factory: pytest.TempPathFactory,
    columns: list[list[str]],
    quoting: int,
    end: str,
    block: int,
    part_bytes: int,
    batch_size: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.csv"
    _write(path, columns, quoting, end)
    wanted = pd.read_csv(path, low_memory=False)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(splitting, "_BLOCK", block)
        found = _read(path, part_bytes, batch_size)

    for at, cells in enumerate(columns):
        name = f"c{at}"
        if _is_beyond_64_bits(cells, wanted[name]):
            continue
        (dtype,) = {one.dtype for one in found[name]}
        values = wanted[name].to_numpy()
        assert dtype == values.dtype, (cells, dtype, values.dtype)
        pairs = zip(np.concatenate(found[name]).tolist(), values.tolist(), strict=True)
        for ours, theirs in pairs:
            assert type(ours) is type(theirs), cells
            assert ours == theirs or (ours != ours and theirs != theirs), cells


@pytest.mark.parametrize(
    ("cells", "kind", "wanted"),
    [
        (["A", "1", "true", ""], CsvType.TEXT, ["A", "1", "true", math.nan]),
        (["1", "007"], CsvType.WHOLE, [1, 7]),
        (["1", ""], CsvType.FLOAT, [1.0, math.nan]),
        (["NA", "null"], CsvType.EMPTY, [math.nan, math.nan]),
        (["True", "false"], CsvType.TRUTH, [True, False]),
        (["True", "NA"], CsvType.OPTIONAL_TRUTH, [True, math.nan]),
        (["1", str(2**64 - 1)], CsvType.UNSIGNED, [1, 2**64 - 1]),
        (["1", str(2**64)], CsvType.LARGE, [1, 2**64]),
        # pandas makes texts of these, of the missing one too, and of the last one's numbers.
        (["-1", str(2**64 - 1)], CsvType.LARGE, [-1, 2**64 - 1]),
        (["", str(2**63)], CsvType.LARGE, [math.nan, 2**63]),
        (["1.5", str(2**64)], CsvType.FLOAT, [1.5, 2.0**64]),
    ],
)
def test_a_column_has_one_type_in_all_parts_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: list[str], kind: CsvType, wanted: Any
) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 2)
    for order in (1, -1):
        _write(tmp_path / "a.csv", [cells[::order]], csv.QUOTE_MINIMAL, "\n")

        types = ColumnTypes()
        list(splitting.split(tmp_path / "a.csv", "csv", 1, types))
        found = _read(tmp_path / "a.csv", 1, 1)["c0"]

        assert types.letters == kind + CsvType.WHOLE
        assert len({one.dtype for one in found}) == 1
        values = [one for array in found for one in array.tolist()][::order]
        assert list(map(str, values)) == list(map(str, wanted))


def test_a_plan_has_the_types_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("grade,x\nA,1\n1,2.5\n")
    (tmp_path / "b.csv").write_text("grade,x\n1,\n")
    files = [InputFile("a.csv", 1), InputFile("b.csv", 1)]

    plan = planning.make(tmp_path, files, "csv", lambda: None)

    assert [part.types for part in plan.pieces(tmp_path)] == ["tf", "ie"]


def test_a_shard_reads_each_part_by_the_types_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 4)
    seen: list[Any] = []

    class Recorder:
        def prepare(self) -> None:
            """It is ready."""

        def infer(self, columns: Columns, _: float) -> Columns:
            seen.extend(columns["grade"].tolist())
            return {"prediction": columns["x"]}

    (tmp_path / "a.csv").write_text("grade,x\n1,1\n2,2\nA,3\n")
    plan = planning.make(tmp_path, [InputFile("a.csv", 1)], "csv", lambda: None, 1)
    spec = ShardSpec(
        plan.pieces(tmp_path), tmp_path, tmp_path / "status", "csv", cast("Any", None), 9, 9, 9
    )
    Shard(spec, cast("Any", Recorder())).run()

    assert plan.part_count == 3
    assert seen == ["1", "2", "A"]


def test_a_column_without_a_name_is_called_as_in_pandas(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1, 2]}).to_csv(tmp_path / "a.csv")

    assert splitting.column_names(tmp_path / "a.csv") == list(pd.read_csv(tmp_path / "a.csv"))


def test_a_file_with_other_columns_than_were_counted_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (part,) = splitting.split(tmp_path / "a.csv", "csv", 100)

    with pytest.raises(OSError, match="it has 2 columns, where 1 were counted"):
        list(reading.read(tmp_path / "a.csv", "csv", part, 9, types="i"))
    with pytest.raises(OSError, match="a cell is neither true nor false: '1'"):
        list(reading.read(tmp_path / "a.csv", "csv", part, 9, types="bi"))
