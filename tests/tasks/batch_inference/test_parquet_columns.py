"""What a model sees of Parquet's columns, and what is said of files that cannot be read."""

from __future__ import annotations

import datetime
import decimal
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelyard_runtime.frames import Array

from infra import storage
from infra.errors import BadInputError
from tasks.batch_inference import input_files, part_reading, planning
from tasks.batch_inference.reading import Batch

DAY = datetime.datetime(2020, 1, 2, 3, 4, 5)
CENT = decimal.Decimal("1.10")
ID = uuid.UUID(int=7)


def _batches(path: Path, batch_size: int = 2) -> list[Batch]:
    files = input_files.select(storage.store(str(path)), (), ())
    plan = planning.make(path, files, "parquet", lambda: None)
    read = part_reading.read(plan.pieces(path), "parquet", batch_size)
    return [one for one in read if isinstance(one, Batch)]


def _seen(path: Path) -> dict[str, dict[int, Array]]:
    """What the model sees of each record, by the names of columns."""
    found: dict[str, dict[int, Array]] = {}
    for batch in _batches(path):
        for name, values in batch.columns.items():
            found.setdefault(name, {}).update(zip(batch.rows, values, strict=True))
    return found


def _python(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array([b"\xff", None, b"x"], pa.large_binary()), [b"\xff", None, b"x"]),
        (pa.array([b"\xff1", None, b"xx"], pa.binary(2)), [b"\xff1", None, b"xx"]),
        (pa.array(["a", None, "c"], pa.large_string()), ["a", None, "c"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([10, None, 20]).dictionary_encode(), [10.0, np.nan, 20.0]),
        (pa.array([1.5, None, 2], pa.float32()), [1.5, np.nan, 2.0]),
        (pa.array([2**63, 1, 2], pa.uint64()), [2**63, 1, 2]),
        (pa.nulls(3), [np.nan] * 3),
        (pa.array([CENT, None, CENT]), ["1.10", None, "1.10"]),
        (pa.array([DAY, None, DAY]), ["2020-01-02 03:04:05", None, "2020-01-02 03:04:05"]),
        (pa.array([DAY.date(), None, DAY.date()]), ["2020-01-02", None, "2020-01-02"]),
        (pa.array([1, None, 2], pa.timestamp("ns")),
         ["1970-01-01 00:00:00.000000001", None, "1970-01-01 00:00:00.000000002"]),
        (pa.array([datetime.timedelta(1), None, None]), ["1 day, 0:00:00", None, None]),
        (pa.array([ID.bytes, None, None], pa.uuid()), [str(ID), None, None]),
        (pa.array([{"a": b"\xff", "n": 1}, {"a": b"x", "n": None}, None]),
         [{"a": b"\xff", "n": 1}, {"a": b"x", "n": None}, None]),
        (pa.array([{"t": DAY, "c": [CENT]}, {"t": None, "c": None}, None]),
         [{"t": "2020-01-02 03:04:05", "c": ["1.10"]}, {"t": None, "c": None}, None]),
        (pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
         [[["a", 1]], None, []]),
        (pa.array([[CENT], None, [None]]), [["1.10"], None, [None]]),
        (pa.array([["a"], None, ["b"]]), [["a"], None, ["b"]]),
        (pa.array([[[1, 2], [3]], [[4]], None]), [[[1, 2], [3]], [[4]], None]),
        (pa.array([[1], [2], [3]], pa.list_view(pa.int64())), [[1], [2], [3]]),
    ],
    ids=lambda one: str(one.type)[:30] if isinstance(one, pa.Array) else "",
)  # fmt: skip
def test_values_of_a_column(tmp_path: Path, values: pa.Array, wanted: list[Any]) -> None:
    pq.write_table(pa.table({"c": values}), tmp_path / "a.parquet")

    seen = _seen(tmp_path / "a.parquet")["c"]

    assert repr([_python(seen[row]) for row in range(3)]) == repr(wanted)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.list_(pa.float32()), np.float64),
        (pa.large_list(pa.int16()), np.int64),
        (pa.list_(pa.float64(), 2), np.float64),
        (pa.list_(pa.bool_()), np.bool_),
        (pa.list_(pa.list_(pa.int8(), 1)), np.int64),
    ],
    ids=str,
)
def test_lists_of_one_shape_are_a_tensor(tmp_path: Path, kind: pa.DataType, dtype: type) -> None:
    shape = (4, 2, 1) if pa.types.is_nested(kind.value_type) else (4, 2)
    rows = (np.arange(8) % 2).astype(dtype).reshape(shape)
    pq.write_table(pa.table({"c": pa.array(rows.tolist(), kind)}), tmp_path / "a.parquet")

    found = np.concatenate([one.columns["c"] for one in _batches(tmp_path / "a.parquet")])

    assert found.dtype == dtype
    assert found.tolist() == rows.tolist()


_SCHEMA = pa.schema(
    [("whole", pa.int32()), ("lacking", pa.int64()), ("real", pa.float32()), ("truth", pa.bool_()),
     ("text", pa.string()), ("tensor", pa.list_(pa.float64())),
     ("kind", pa.dictionary(pa.int32(), pa.string()))]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "whole": st.integers(-(2**31), 2**31 - 1),
                "lacking": st.none() | st.integers(0, 2**31 - 1),
                "real": st.none() | st.floats(width=32),
                "truth": st.booleans(),
                "text": st.none() | st.text(max_size=3),
                "tensor": st.lists(st.floats(0, 1), min_size=3, max_size=3),
                "kind": st.sampled_from("ab"),
            }
        ),
        min_size=1, max_size=9,
    ),
    st.integers(1, 4),
)  # fmt: skip
def test_a_model_sees_what_pandas_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], group: int
) -> None:
    path = tmp_path_factory.mktemp("in") / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), path, row_group_size=group)

    wanted, seen = pd.read_parquet(path), _seen(path)
    wanted["text"] = wanted["text"].astype(object).where(wanted["text"].notna(), None)

    for name in wanted.columns:
        ours = [_python(seen[name][row]) for row in range(len(rows))]
        assert repr(ours) == repr([_python(one) for one in wanted[name]])


def _not_utf8() -> pa.Array:
    ends = pa.py_buffer(np.array([0, 1, 2], np.int32))
    return pa.Array.from_buffers(pa.string(), 2, [None, ends, pa.py_buffer(b"a\xff")])


@pytest.mark.parametrize("key", ["", "c"])
@pytest.mark.parametrize(
    ("values", "why"),
    [
        (_not_utf8(), "codec can't decode byte"),
        (pa.array([1, 2**62], pa.timestamp("us")), "out of range"),
    ],
    ids=["text", "time"],
)
def test_a_value_that_is_none_is_refused_with_its_column(
    tmp_path: Path, values: pa.Array, why: str, key: str
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1, 2], "c": values}), path)
    files = input_files.select(storage.store(str(path)), (), ())
    plan = planning.make(path, files, "parquet", lambda: None)

    with pytest.raises(OSError, match=rf"a\.parquet cannot be read: its column 'c': .*{why}"):
        list(part_reading.read(plan.pieces(path), "parquet", 10, key))


def _two_columns(path: Path, **how: Any) -> bytearray:
    """A file of two columns, which lie one behind the other."""
    pq.write_table(pa.table({"a": np.arange(2000) % 7, "b": np.arange(2000.0)}), path, **how)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_damaged_page_is_named_by_its_column(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.parquet"
    data = _two_columns(path, use_dictionary=False)
    chunk = pq.read_metadata(path).row_group(0).column("ab".index(name))
    end = chunk.data_page_offset + chunk.total_compressed_size
    data[end - 300 : end] = bytes(300)
    path.write_bytes(data)

    with pytest.raises(OSError, match=rf"a\.parquet cannot be read: its column '{name}': "):
        _batches(path)


def test_a_damaged_value_is_found_by_the_checksum_of_its_page(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    how = {"use_dictionary": False, "compression": "none", "write_page_checksum": True}
    data = _two_columns(path, **how)
    at = data.index(np.float64(1000).tobytes())
    data[at] ^= 1
    path.write_bytes(data)

    with pytest.raises(OSError, match=r"its column 'b': .*CRC"):
        _batches(path)


@pytest.mark.parametrize("damage", ["footer", "length", "cut off", "start alone"])
def test_a_file_without_its_footer_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    data = _two_columns(path)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    if damage == "footer":
        data[footer : footer + 40] = b"\xff" * 40
    elif damage == "length":
        data[-8:-4] = b"\xff\xff\xff\x7f"
    else:
        del data[footer if damage == "cut off" else 4 :]
    path.write_bytes(data)

    with pytest.raises(BadInputError, match=r"a\.parquet cannot be read as parquet") as raised:
        _batches(path)

    assert raised.value.code == "InputMalformed"


def test_a_file_whose_pages_are_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = _two_columns(path)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:100] + data[footer:])

    with pytest.raises(OSError, match=r"a\.parquet cannot be read: "):
        _batches(path)


def test_files_without_row_groups_add_no_records(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2, 3]})
    pq.write_table(table, tmp_path / "b.parquet")
    pq.ParquetWriter(tmp_path / "a.parquet", table.schema).close()
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 0

    assert [list(one.rows) for one in _batches(tmp_path, 3)] == [[0, 1, 2]]

    (tmp_path / "b.parquet").unlink()
    with pytest.raises(BadInputError, match="have no records") as raised:
        _batches(tmp_path)
    assert raised.value.code == "InputEmpty"
