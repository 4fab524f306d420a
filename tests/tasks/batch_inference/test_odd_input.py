"""Input that is not what it is called, or hardly so: refused by name, or read as it is."""

from __future__ import annotations

import codecs
import datetime
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import storage
from infra.errors import BadInputError
from tasks.batch_inference import input_files, json_texts, planning, reading, splitting
from tasks.batch_inference.csv_columns import ColumnTypes
from tasks.batch_inference.predictor_client import PredictorClient
from tasks.batch_inference.reading import BadRecord, Batch
from tasks.batch_inference.shard import Shard, ShardSpec

LINES = '{"x": 1}\n{"x": 2}\n'


def _plan(folder: Path, form: str) -> planning.Plan:
    files = input_files.select(storage.store(str(folder)), (), ())
    return planning.make(folder, files, form, lambda: None)


def _records(path: Path, form: str, part_bytes: int = 2**20) -> Iterator[tuple[int, Any]]:
    """The rows of a file with their fields, or with why they cannot be read."""
    types = ColumnTypes()
    for part in list(splitting.split(path, form, part_bytes, types)):
        for one in reading.read(path, form, part, 7, types=types.letters):
            if isinstance(one, BadRecord):
                yield one.row, one.reason
            else:
                columns = [column.tolist() for column in one.columns.values()]
                yield from zip(one.rows, map(list, zip(*columns, strict=True)), strict=True)


def _pq(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    names, values = list(columns), list(columns.values())
    pq.write_table(pa.Table.from_arrays(values, names=[name[0] for name in names]), sink)
    return cast("bytes", sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    ("form", "data", "message"),
    [
        ("jsonl", LINES.encode("utf-16"), "it is UTF-16, and no text in UTF-8"),
        ("json", b"[1, 2]".decode().encode("utf-16"), "it is UTF-16, and no text"),
        ("csv", codecs.BOM_UTF32_LE + "x\n1\n".encode("utf-32-le"), "it is UTF-32, and no text"),
        (
            "jsonl",
            gzip.compress(LINES.encode(), mtime=0),
            r"it is compressed \(gzip\), and no text",
        ),
        ("csv", b"PK\x03\x04...", r"it is compressed \(zip\), and no text"),
        ("jsonl", _pq(x=pa.array([1])), "it is Parquet, and no text"),
        ("csv", b"x,y,x\n1,2,3\n", "2 columns are called 'x'"),
        ("csv", b",Unnamed: 0\n1,2\n", "2 columns are called 'Unnamed: 0'"),
        ("csv", "é,y\n1,2\n".encode("latin-1"), "its header line is no text in UTF-8"),
        ("csv", b'x,"y\n' + b"1,2\n" * 100, "its header line does not end: a quote may not"),
        ("parquet", _pq(x1=pa.array([1]), x2=pa.array([2])), "2 columns are called 'x'"),
        ("parquet", _pq(x=pa.array([1]))[:-9], r"it is no Parquet file: .*[^.][.]\n"),
        ("parquet", b"", r"it is no Parquet file: .* 0 bytes[.]\n"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "-",
)
def test_what_is_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, data: bytes, message: str
) -> None:
    monkeypatch.setattr(splitting, "_LONGEST_HEADER", 200)
    (tmp_path / "a b\né").write_bytes(data)

    with pytest.raises(BadInputError, match=message) as raised:
        _plan(tmp_path, form)

    assert raised.value.code == "InputMalformed"
    assert "a b\né cannot be read as" in raised.value.message


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl")).write_text(LINES)

    with pytest.raises(BadInputError, match=r"name of the file \\udcff.jsonl") as raised:
        _plan(tmp_path, "jsonl")

    assert raised.value.code == "InputNameInvalid"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(["a", '"', ",", "\n", "\r\n", "\r", '"b"', '""', "1", " "])),
    st.sampled_from([1, 2, 3, 64]),
)
def test_records_of_csv_are_counted_as_they_are_read(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.csv"
    path.write_bytes(("x,y\n" + "".join(pieces)).encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(splitting, "_BLOCK", block)
        parts = list(splitting.split(path, "csv", 8))
        for part in parts:
            if not any(one.fault for one in parts):
                found = list(reading.read(path, "csv", part, 10))
                rows = sum(1 if isinstance(one, BadRecord) else len(one.rows) for one in found)
                assert rows == part.rows


def test_a_quote_within_a_field_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y\n5" pipe,1\n6" pipe,2\n"7"" pi\npe",3\n')

    assert list(_records(tmp_path / "a.csv", "csv", 1)) == [
        (0, ['5" pipe', 1]),
        (1, ['6" pipe', 2]),
        (2, ['7" pi\npe', 3]),
    ]


def test_a_quote_that_is_not_closed_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y\n1,"a\n2,b\n')

    (file,) = _plan(tmp_path, "csv").files

    assert file.fault == "a quote is not closed: the last record may hold many lines"
    assert file.rows == 1


def test_records_of_csv_that_are_no_text_are_told(tmp_path: Path) -> None:
    lines = ["x,y,z", "caf\xe9,1,a", "b,2,b", "c,3,\xe9", "d,4,5,6", "e,5,e"]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode("latin-1"))

    assert dict(_records(tmp_path / "a.csv", "csv")) == {
        0: "x is no text in UTF-8: caf\ufffd",
        1: ["b", 2, "b"],
        2: "z is no text in UTF-8: \ufffd",
        3: "It has 4 cells, and the header names 3 columns: d,4,5,6",
        4: ["e", 5, "e"],
    }


def test_a_file_of_records_that_are_all_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x,y\n\xff,1\n\xfe,2\n")

    assert dict(_records(tmp_path / "a.csv", "csv")) == dict.fromkeys(
        range(2), "x is no text in UTF-8: �"
    )


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ('{"x": NaN}', None),
        ('{"x": "\\ud800"}', ["\ud800"]),
        ('{"x": 1, "x": 2}', [2]),
        ("9" * 5000, "It is no JSON (Exceeds the limit"),
        ("[" * 100_000 + "]" * 100_000, "It is no JSON (maximum recursion depth"),
        ('{"x": "caf\xe9"}', "It is no JSON ('utf-8' codec can't decode"),
    ],
    ids=["NaN", "surrogate", "twice", "digits", "deep", "latin"],
)
def test_odd_records_of_json(tmp_path: Path, record: str, expected: Any) -> None:
    (tmp_path / "a.jsonl").write_bytes(f'{record}\n{{"x": "fine"}}\n'.encode("latin-1"))

    (_, found), after = _records(tmp_path / "a.jsonl", "jsonl")

    assert after == (1, ["fine"])
    if isinstance(expected, str):
        assert found.startswith(expected)
    else:
        assert [None if one != one else one for one in found] == (expected or [None])


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("block", [3, 16, 2**20])
def test_a_record_that_is_too_long_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, end: str
) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", block)
    monkeypatch.setattr(json_texts, "LONGEST_RECORD", 20)
    long, longest = json.dumps({"x": "y" * 30}), json.dumps({"x": "z" * 11})
    assert len(longest) == 20
    (tmp_path / "a.jsonl").write_text(f'{long}\n{{"x": 1}}\n{long}\n{long}\n{longest}{end}')
    (tmp_path / "a.json").write_text(f'[{long},{{"x": 1}},{long},{long},{longest}]{end}')
    (tmp_path / "one.json").write_text(long)
    told = "It is longer than 1.90735e-05 MiB."

    wanted = {0: told, 1: [1], 2: told, 3: told, 4: ["z" * 11]}
    assert dict(_records(tmp_path / "a.jsonl", "jsonl")) == wanted
    assert dict(_records(tmp_path / "a.json", "json")) == wanted
    assert dict(_records(tmp_path / "one.json", "json")) == {0: told}


def test_a_record_of_csv_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 8)
    monkeypatch.setattr(splitting, "LONGEST_RECORD", 40)
    (tmp_path / "a.csv").write_text("x,y\n" + "1,2\n" * 20 + '3,"a\n' + "4,5\n" * 20)

    with pytest.raises(BadInputError, match=r"record 20 is longer .* a quote may") as raised:
        _plan(tmp_path, "csv")

    assert raised.value.code == "InputMalformed"


def test_columns_of_parquet(tmp_path: Path) -> None:
    day = datetime.datetime(2020, 1, 1)
    table = pa.table(
        {
            "list": [[1, 2], None], "struct": [{"a": 1}, {"a": None}], "bytes": [b"\xff", None],
            "code": pa.array(["u", "v"]).dictionary_encode(),
            "zone": pa.array([day, None], pa.timestamp("us", "Asia/Seoul")),
            "cent": pa.array(["1.50", None]).cast(pa.decimal128(9, 2)),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")

    assert list(_records(tmp_path / "empty.parquet", "parquet")) == []
    assert list(_records(tmp_path / "a.parquet", "parquet")) == [
        (0, [[1, 2], {"a": 1}, b"\xff", "u", "2020-01-01 09:00:00+09:00", "1.50"]),
        (1, [None, {"a": None}, None, "v", None, None]),
    ]


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.random.default_rng(0).random(20_000)}), path)
    data = bytearray(path.read_bytes())
    data[50_000:90_000] = bytes(40_000)
    path.write_bytes(data)

    with pytest.raises(OSError, match=r"a\.parquet cannot be read: .*[Cc]orrupt"):
        list(_records(path, "parquet"))


def test_a_file_with_other_records_than_were_counted_ends_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twice:
        def prepare(self) -> None:
            pass

        def infer(self, columns: Any, _: float) -> Any:
            return {"prediction": columns["x"]}

    (tmp_path / "a.jsonl").write_text(LINES)
    parts = _plan(tmp_path, "jsonl").pieces(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"x":         1} \n')  # as many bytes
    none = cast("Any", None)
    spec = ShardSpec(parts, tmp_path, tmp_path / "status", "jsonl", none, 9, 9, 9)

    with pytest.raises(OSError, match=r"a\.jsonl has 1 records where 2 were counted"):
        Shard(spec, cast("PredictorClient", Twice())).run()
    assert not (tmp_path / "00000000.json").exists()


KEYS = ["00123", "12345678901234567890", "", "NA", "true", "2020-01-01", "1e5", "a,b"]


@pytest.mark.parametrize("size", [1, 3, 10])
def test_keys_of_csv_are_the_texts_that_the_file_has(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.csv"
    lines = [f'"{key}",{at}' for at, key in enumerate(KEYS)]
    path.write_text("\n".join(["id,x", *lines[:3], "1,2,3", *lines[3:]]) + "\n")

    types = ColumnTypes()
    (part,) = splitting.split(path, "csv", 1000, types)
    found = list(reading.read(path, "csv", part, size, "id", types.letters))

    batches = [one for one in found if isinstance(one, Batch)]
    assert [key for one in batches for key in one.keys or ()] == KEYS
    assert [x for one in batches for x in one.columns["x"].tolist()] == list(range(len(KEYS)))
    assert all(list(one.columns) == ["x"] for one in batches)
    assert [one.row for one in found if isinstance(one, BadRecord)] == [3]


def test_keys_of_json_and_parquet_keep_their_numbers(tmp_path: Path) -> None:
    keys = [9007199254740993, None, 3]
    pq.write_table(pa.table({"id": keys, "x": [1, 2, 3]}), tmp_path / "a.parquet")
    lines = [{"id": key, "x": at} for at, key in enumerate([*keys, 2**64 - 1, 1.5, "b"])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))

    for form, wanted in (("parquet", keys), ("jsonl", [one["id"] for one in lines])):
        path = tmp_path / f"a.{form}"
        (part,) = splitting.split(path, form, 1000)
        (batch,) = reading.read(path, form, part, 10, "id")
        assert isinstance(batch, Batch)
        assert list(batch.keys or ()) == wanted
        assert list(map(type, batch.keys or ())) == list(map(type, wanted))
        assert list(batch.columns) == ["x"]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("csv", b"a,b,c\n1,2,3\n4,\xff,6\n7,8,9\n"),
        ("jsonl", b'{"a": "1", "b": "2", "c": "3"}\n{"a": \xff}\n{"a": "7", "b": 8, "c": "9"}\n'),
    ],
)
def test_fields_that_are_not_asked_for_are_checked_all_the_same(
    tmp_path: Path, form: str, text: bytes
) -> None:
    path = tmp_path / f"one.{form}"
    path.write_bytes(text)
    (part,) = splitting.split(path, form, 2**20)

    found = list(reading.read(path, form, part, 9, "c", only={"a", "c"}))

    (bad,) = (one for one in found if isinstance(one, BadRecord))
    (batch,) = (one for one in found if isinstance(one, Batch))
    assert bad.row == 1
    assert (list(batch.columns), batch.columns["a"].tolist()) == (["a"], ["1", "7"])
    assert (batch.rows, batch.keys) == ([0, 2], ["3", "9"])


def test_columns_of_parquet_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    path.write_bytes(_pq(a=[1, 2], b=[3, 4], c=[5, 6]))
    (part,) = splitting.split(path, "parquet", 2**20)

    (batch,) = reading.read(path, "parquet", part, 9, "c", only={"b", "c"})

    assert isinstance(batch, Batch)
    assert (list(batch.columns), batch.keys) == (["b"], [5, 6])
