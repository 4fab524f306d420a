"""Files in parts, and their records: none is lost, doubled or taken apart."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.batch_inference import json_elements, reading, splitting
from tasks.batch_inference.csv_columns import ColumnTypes
from tasks.batch_inference.planning import Plan, PlannedFile
from tasks.batch_inference.reading import BadRecord
from tasks.batch_inference.splitting import FilePart, split
from tests.soaking import examples

_SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=6)
_RECORDS = st.lists(
    st.recursive(
        _SCALARS,
        lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one),
        max_leaves=6,
    ),
    max_size=12,
)
_SIZES = st.integers(1, 40)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 7)


def _read(
    path: Path, form: str, size: int, batch: int = 3
) -> tuple[list[FilePart], dict[int, Any]]:
    """The parts, and the records or their faults by row."""
    types = ColumnTypes()
    parts = list(split(path, form, size, types))
    found: dict[int, Any] = {}
    for part in parts:
        before = len(found)
        for one in reading.read(path, form, part, batch, types=types.letters):
            if isinstance(one, BadRecord):
                assert one.row not in found
                found[one.row] = one
                continue
            assert len(one.rows) <= batch
            for at, row in enumerate(one.rows):
                assert row not in found
                found[row] = {name: values[at] for name, values in one.columns.items()}
        assert len(found) - before == part.rows
    assert [part.first_row for part in parts] == list(
        np.cumsum([0, *(part.rows for part in parts)])[: len(parts)]
    )
    return parts, found


def _as_read(record: Any) -> Any:
    return record if isinstance(record, dict) else {"input": record}


def _same(found: Any, expected: Any) -> bool:
    """Equal, where a missing number is NaN and arrays are lists."""
    if isinstance(found, np.ndarray):
        found = found.tolist()
    if isinstance(found, np.generic):
        found = found.item()
    if expected is None and isinstance(found, float):
        return bool(np.isnan(found))
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(found) == list(expected) and all(
            _same(found[name], expected[name]) for name in expected
        )
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return bool(found == expected)


@settings(max_examples=examples(150), deadline=None)
@given(_RECORDS, _SIZES, st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]), st.booleans())
def test_json_lines(
    tmp_path_factory: pytest.TempPathFactory, records: Any, size: int, end: str, ended: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    text = end.join(json.dumps(one, ensure_ascii=False) for one in records) + end * ended
    path.write_bytes(text.encode("utf-8", "replace"))

    _, found = _read(path, "jsonl", size)

    records = [
        json.loads(line) for line in text.encode("utf-8", "replace").split(b"\n") if line.strip()
    ]
    assert sorted(found) == list(range(len(records)))
    assert all(_same(found[at], _as_read(one)) for at, one in enumerate(records))


@settings(max_examples=examples(200), deadline=None)
@given(_RECORDS, _SIZES, st.sampled_from([None, 1]), st.booleans())
def test_json_arrays(
    tmp_path_factory: pytest.TempPathFactory, records: Any, size: int, indent: Any, ascii_: bool
) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.json"
    data = json.dumps(records, indent=indent, ensure_ascii=ascii_).encode("utf-8", "replace")
    path.write_bytes(data)

    parts, found = _read(path, "json", size)

    records = json.loads(data)
    assert not any(part.fault for part in parts)
    assert sorted(found) == list(range(len(records)))
    assert all(_same(found[at], _as_read(one)) for at, one in enumerate(records))


@settings(max_examples=examples(100), deadline=None)
@given(st.text(alphabet='\\"a[{,]}', max_size=30), st.integers(1, 5))
def test_texts_of_an_array_hide_structure(text: str, piece: int) -> None:
    data = json.dumps([text, [text], {text: text}]).encode()[1:]
    scanner = json_elements.ArrayScanner()
    commas, close = [], -1
    for start in range(0, len(data), piece):
        found = scanner.scan(data[start : start + piece])
        commas += [start + at for at in found.commas.tolist()]
        close = start + found.close if found.close >= 0 and close < 0 else close

    assert len(commas) == 2
    assert json.loads(data[: commas[0]]) == text
    assert json.loads(data[commas[0] + 1 : commas[1]]) == [text]
    assert close == len(data) - 1


_CELLS = st.text(alphabet="ab\",\n\t '0", max_size=5)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(st.tuples(_CELLS, st.integers(0, 9)), max_size=12), _SIZES,
    st.sampled_from(["\n", "\r\n"]),
)  # fmt: skip
def test_csv(tmp_path_factory: pytest.TempPathFactory, rows: Any, size: int, end: str) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    made = io.StringIO()
    writer = csv.writer(made, lineterminator=end)
    writer.writerows([("text", "number"), *rows])
    path.write_bytes(made.getvalue().encode())

    _, found = _read(path, "csv", size)

    assert sorted(found) == list(range(len(rows)))
    assert [found[at]["number"] for at in range(len(rows))] == [number for _, number in rows]


def test_bad_records_have_their_row_and_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": \n{"a": NaN}\n{"a": 2} {"a": 3}\n')
    (tmp_path / "a.json").write_text('[{"a": 1}, , {"a": 01}, {"a": 4}]')
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n4,5,6\n7,8\n")

    lines = _read(tmp_path / "a.jsonl", "jsonl", 10)[1]
    array = _read(tmp_path / "a.json", "json", 10)[1]
    table = _read(tmp_path / "a.csv", "csv", 1000)[1]

    assert [isinstance(lines[at], BadRecord) for at in range(4)] == [False, True, False, True]
    assert lines[1].reason.startswith("It is no JSON (")
    assert lines[1].reason.endswith('{"a":')
    assert [isinstance(array[at], BadRecord) for at in range(4)] == [False, True, True, False]
    assert [isinstance(table[at], BadRecord) for at in range(4)] == [False, True, True, False]
    assert table[1].reason == "It has 1 cells, and the header names 2 columns: 3"


@pytest.mark.parametrize(
    ("text", "rows", "fault"),
    [
        ("[1, 2", 2, "the array is not closed"),
        ("[1, 2] [3]", 2, "there is more behind the array"),
        ('[{"a": 1}}, {"a": 2}]', 1, "there is more behind the array"),
        ('["a, 2]', 1, "the array is not closed"),
        ("[", 0, "the array is not closed"),
        ("[]", 0, ""),
        ("  [ ] \n", 0, ""),
        ("", 0, ""),
        ("\ufeff[1, 2]", 2, ""),
        ('{"a": 1}', 1, ""),
        (" 3 ", 1, ""),
        ("[[1, 2], [3, 4]]", 2, ""),
    ],
)
def test_a_file_of_json(tmp_path: Path, text: str, rows: int, fault: str) -> None:
    (tmp_path / "a.json").write_text(text)

    parts, found = _read(tmp_path / "a.json", "json", 4)

    assert len(found) == rows
    assert "".join(part.fault for part in parts).startswith(fault)
    assert bool(fault) == any(part.fault for part in parts)


def test_parquet(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, None, 4, 5], "b": ["x", None, "z", "w", "v"], "c": [[1, 2]] * 5})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)

    parts, found = _read(tmp_path / "a.parquet", "parquet", 1)

    assert [part.rows for part in parts] == [2, 2, 1]
    assert [found[at]["b"] for at in range(5)] == ["x", None, "z", "w", "v"]
    assert found[0]["a"] == 1
    assert np.isnan(found[2]["a"])
    assert found[4]["c"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.parquet", b"text", "no Parquet file"), ("a.csv", b"\n\n", "no header line")],
)
def test_a_file_of_another_format_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ValueError, match=message):
        list(split(tmp_path / name, name.partition(".")[2], 10))


def test_a_file_that_became_shorter_is_no_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n2\n3\n")
    (part,) = split(tmp_path / "a.jsonl", "jsonl", 100)
    (tmp_path / "a.jsonl").write_text("1\n")

    with pytest.raises(OSError, match="shorter than it was"):
        list(reading.read(tmp_path / "a.jsonl", "jsonl", part, 2))


def test_a_record_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2, "b": 3}\n[1]\n[1, 2]\n"x"\n{"a": 4}\n')

    forms = [
        sorted(one.columns)
        for (part,) in [split(tmp_path / "a.jsonl", "jsonl", 100)]
        for one in reading.read(tmp_path / "a.jsonl", "jsonl", part, 6)
        if not isinstance(one, BadRecord)
    ]

    assert forms == [["a"], ["a", "b"], ["input"], ["input"], ["input"]]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([1], "1 file has 1 record."),
        ([2000], "1 file has 2,000 records."),
        ([0, 2], "2 files have 2 records."),
    ],
)
def test_a_plan_tells_how_large_it_is(rows: list[int], told: str) -> None:
    files = [PlannedFile("a", 9, 0, 0, [FilePart(0, 9, 0, count)]) for count in rows]

    assert Plan(files).summary == told
