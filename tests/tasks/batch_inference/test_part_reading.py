"""Records of several files as those of one part: each once, in full batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import storage
from tasks.batch_inference import input_files, part_reading, planning
from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.reading import BadRecord, Batch
from tests.soaking import examples

_RECORDS = st.sampled_from(
    [{"a": 1}, {"a": 2, "b": "x"}, {"b": "y"}, {"a": 1.5}, [1, 2], [1, 2, 3], 7, "text", None]
)


def _plan(folder: Path, form: str, shards: int = 1) -> planning.Plan:
    files = input_files.select(storage.store(str(folder)), (), ())
    return planning.make(folder, files, form, lambda: None, shards=shards)


def _write(folder: Path, form: str, tables: list[dict[str, list[Any]]]) -> None:
    for at, table in enumerate(tables):
        path = folder / f"{at:03}.{form}"
        if form == "parquet":
            pq.write_table(pa.table(table), path)
        elif form == "csv":
            lines = [
                ",".join(table),
                *(",".join(map(str, row)) for row in zip(*table.values(), strict=True)),
            ]
            path.write_text("\n".join(lines))
        else:
            rows = [
                dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)
            ]
            lines = [json.dumps(row) for row in rows]
            path.write_text("\n".join(lines) if form == "jsonl" else f"[{','.join(lines)}]")


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(_RECORDS, max_size=6), min_size=1, max_size=8).filter(any),
    st.sampled_from([1, 2, 5, 100]), st.sampled_from([1, 4, 100]),
)  # fmt: skip
def test_each_record_comes_once(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[Any]], batch: int, ahead: int
) -> None:
    folder = tmp_path_factory.mktemp("in")
    for at, records in enumerate(files):
        (folder / f"{at}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    pieces = [
        PlannedPiece(0, piece.path, piece.part, piece.types, piece.file)
        for piece in _plan(folder, "jsonl").pieces(folder)
    ]
    found: dict[int, Any] = {}
    begun = 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(part_reading, "_MOST_AHEAD", ahead)
        for one in part_reading.read(pieces, "jsonl", batch):
            if isinstance(one, PlannedPiece):
                begun += one.part.rows
                continue
            assert isinstance(one, Batch)
            assert len(one.rows) <= batch
            assert sorted(one.rows) == list(one.rows)
            for at, row in enumerate(one.rows):
                assert row < begun
                assert row not in found
                found[row] = {name: values[at] for name, values in one.columns.items()}

    records = [record for some in files for record in some]
    assert sorted(found) == list(range(len(records)))
    for row, record in enumerate(records):
        wanted = record if isinstance(record, dict) else {"input": record}
        if record is None:
            assert str(found[row]["input"]) in {"None", "nan"}
            continue
        assert {name: np.asarray(one).tolist() for name, one in found[row].items()} == wanted


_VALUES = st.sampled_from(
    [0, 1, 2**53 + 1, 2**63, 10**400, 1.5, 2.0, None, True, False, "x", "1", {"a": 1}, [], [1, 2],
     [3, 4], [1.5, 2], [1, None], [True, False], [True, 2], ["x"], [1, "x"], [[1], [2]],
     [[1], [2, 3]], [1, 2, 3], [2**63, 1]]
)  # fmt: skip
_FIELDS = st.dictionaries(st.sampled_from("abc"), _VALUES, min_size=1)


def _seen(path: Path, form: str, order: list[int], batch: int) -> dict[int, Any]:
    """What the model sees of each record of a file, whose rows have the numbers in ``order``."""
    found: dict[int, Any] = {}
    for one in part_reading.read(_plan(path, form).pieces(path), form, batch):
        if isinstance(one, Batch):
            for at, row in enumerate(one.rows):
                found[order[row]] = {
                    name: (values.dtype, values.shape[1:], repr(values[at]))
                    for name, values in one.columns.items()
                }
    return found


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(_FIELDS | _VALUES, min_size=1, max_size=12), st.randoms(use_true_random=False),
    st.sampled_from(["json", "jsonl"]),
)  # fmt: skip
def test_what_a_model_sees_of_a_record_does_not_depend_on_its_neighbours(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], chance: Any, form: str
) -> None:
    folder = tmp_path_factory.mktemp("in")
    order = list(range(len(records)))
    seen = []
    for batch in (1, 3, 100):
        texts = [json.dumps(records[at]) for at in order]
        text = "\n".join(texts) if form == "jsonl" else f"[{','.join(texts)}]"
        (folder / "a").write_text(text)
        seen.append(_seen(folder, form, order, batch))
        chance.shuffle(order)

    assert sorted(seen[0]) == list(range(len(records)))
    assert seen[0] == seen[1] == seen[2]


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 9), st.integers(0, 9), st.none() | st.booleans(),
            st.none() | st.text("ab", max_size=2), st.none() | st.lists(st.integers(0, 9)),
            st.none() | st.floats(0, 1), st.none() | st.lists(st.none() | st.integers(0, 3)),
        ),
        min_size=1, max_size=12,
    ),
    st.randoms(use_true_random=False), st.booleans(),
)  # fmt: skip
def test_likewise_of_a_row_of_parquet(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], chance: Any, has_statistics: bool
) -> None:
    folder = tmp_path_factory.mktemp("in")
    kinds = [pa.int32(), pa.int64(), pa.bool_(), pa.string(), pa.list_(pa.int64()), pa.float32()]
    schema = pa.schema(
        [(f"c{at}", kind) for at, kind in enumerate([*kinds, pa.large_list(pa.int8())])]
    )
    order = list(range(len(rows)))
    seen = []
    for batch, group in ((1, 2), (3, 5), (100, 100)):
        columns = zip(*(rows[at] for at in order), strict=True)
        arrays = [pa.array(one, kind) for one, kind in zip(columns, schema.types, strict=True)]
        pq.write_table(
            pa.table(arrays, schema), folder / "a", group, write_statistics=has_statistics
        )
        seen.append(_seen(folder, "parquet", order, batch))
        chance.shuffle(order)

    assert sorted(seen[0]) == list(range(len(rows)))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1, 2], [1, 2]),
        ([1, None], [1.0, np.nan]),
        ([1, 2.5], [1.0, 2.5]),
        ([None, None], [np.nan, np.nan]),
        (["a", None], ["a", None]),
        ([True, None], [True, None]),
        ([True, False], [True, False]),
        ([1, "a", None], [1.0, "a", np.nan]),
        ([[1, 2], [0.5, 1]], [[1.0, 2.0], [0.5, 1.0]]),
        ([[1, 2], None], [[1, 2], None]),
    ],
)
def test_integers_are_floats_where_their_file_has_others(
    tmp_path: Path, values: list[Any], wanted: list[Any]
) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"x": one}) + "\n" for one in values))

    found: dict[int, Any] = {}
    for one in part_reading.read(_plan(tmp_path, "jsonl").pieces(tmp_path), "jsonl", 1):
        if isinstance(one, Batch):
            found[one.rows[0]] = one.columns["x"].tolist()[0]

    assert str([found[at] for at in range(len(values))]) == str(wanted)


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet"])
def test_small_files_share_batches(tmp_path: Path, form: str) -> None:
    _write(tmp_path, form, [{"x": [at], "t": [f"t{at}"]} for at in range(100)])
    pieces = _plan(tmp_path, form).pieces(tmp_path)
    part = [piece for piece in pieces if piece.number == 0]

    batches = [one for one in part_reading.read(part, form, 10) if isinstance(one, Batch)]

    assert len(part) == 25  # a quarter: what a shard is given at least
    assert [len(one.rows) for one in batches] == [10, 10, 5]
    assert [x for one in batches for x in one.columns["x"].tolist()] == list(range(25))
    assert [t for one in batches for t in one.columns["t"].tolist()] == [
        f"t{at}" for at in range(25)
    ]


def test_columns_of_other_types_are_not_joined(tmp_path: Path) -> None:
    _write(tmp_path, "csv", [{"x": [at if at % 2 else f"{at}.5"]} for at in range(8)])
    pieces = [
        PlannedPiece(0, piece.path, piece.part, piece.types, piece.file)
        for piece in _plan(tmp_path, "csv").pieces(tmp_path)
    ]

    found = {
        one.columns["x"].dtype: (list(one.rows), one.columns["x"].tolist())
        for one in part_reading.read(pieces, "csv", 10, "")
        if isinstance(one, Batch)
    }

    assert found == {
        np.dtype(np.int64): ([1, 3, 5, 7], [1, 3, 5, 7]),
        np.dtype(np.float64): ([0, 2, 4, 6], [0.5, 2.5, 4.5, 6.5]),
    }


def test_keys_are_joined_with_their_records(tmp_path: Path) -> None:
    _write(tmp_path, "jsonl", [{"id": [f"k{at}"], "x": [at]} for at in range(8)])
    (tmp_path / "008.jsonl").write_text('{"x": 8}\n{')
    pieces = [
        PlannedPiece(0, piece.path, piece.part, piece.types, piece.file)
        for piece in _plan(tmp_path, "jsonl").pieces(tmp_path)
    ]

    found = list(part_reading.read(pieces, "jsonl", 10, "id"))

    batches = [one for one in found if isinstance(one, Batch)]
    assert [(list(one.rows), one.keys) for one in batches] == [
        (list(range(8)), [f"k{at}" for at in range(8)]), ([8], None),
    ]  # fmt: skip
    assert [one.row for one in found if isinstance(one, BadRecord)] == [9]


@pytest.mark.parametrize(("text", "count"), [("1\n2\n3\n4\n", 4), ("1\n      \n", 1)])
def test_a_file_with_other_records_than_were_counted_is_named(
    tmp_path: Path, text: str, count: int
) -> None:
    (tmp_path / "a.jsonl").write_text("11\n\n22\n\n")
    (tmp_path / "b.jsonl").write_text("3\n")
    pieces = _plan(tmp_path, "jsonl").pieces(tmp_path)
    (tmp_path / "a.jsonl").write_text(text)

    with pytest.raises(OSError, match=rf"a\.jsonl has {count} records where 2 were counted"):
        list(part_reading.read(pieces, "jsonl", 10))
