"""Fields that no record has, and files of another format, are refused early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import storage
from infra.errors import BadInputError
from tasks.batch_inference import input_files, planning, splitting
from tasks.batch_inference.record_fields import InputFields

TABLE = {"id": ["a", "b"], "x": [1, 2]}
TEXTS = {
    "jsonl": '{"id": "a", "x": 1}\n{"id": "b", "x": 2, "late": 1}\n',
    "json": '[{"id": "a", "x": 1}, {"id": "b", "x": 2, "late": 1}]',
    "csv": "id,x\na,1\nb,2\n",
}


def _plan(folder: Path, form: str, fields: InputFields) -> planning.Plan:
    files = input_files.select(storage.store(str(folder)), (), ())
    return planning.make(folder, files, form, lambda: None, 1, fields=fields)


def _write(folder: Path, form: str) -> None:
    if form == "parquet":
        pq.write_table(pa.table(TABLE), folder / f"a.{form}")
    else:
        (folder / f"a.{form}").write_text(TEXTS[form])


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (InputFields("idd"), "key: no record of the input has a field 'idd'; the first one of a."),
        (InputFields("id", ["x", "y"]), "drop_fields: no record of the input has a field 'y'; "),
    ],
)
def test_a_field_that_no_record_has_is_refused(
    tmp_path: Path, form: str, fields: InputFields, told: str
) -> None:
    _write(tmp_path, form)

    with pytest.raises(BadInputError, match=told) as raised:
        _plan(tmp_path, form, fields)

    assert raised.value.code == "FieldMissing"
    assert "has 'id', 'x'." in raised.value.message


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet"])
def test_fields_of_some_records_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 8)
    _write(tmp_path, form)
    late = ["late"] if form.startswith("json") else []

    assert _plan(tmp_path, form, InputFields("id", ["x", *late])).rows == 2
    (tmp_path / "b").write_bytes((tmp_path / f"a.{form}").read_bytes())
    assert _plan(tmp_path, form, InputFields("x", ["id", *late])).rows == 4


def test_many_fields_are_shown_in_part(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        ",".join(f"c{at}" for at in range(30)) + "\n" + "1," * 29 + "1"
    )

    with pytest.raises(BadInputError, match=r"has 'c0', .*, 'c19' and 10 more\."):
        _plan(tmp_path, "csv", InputFields("id"))


def test_records_that_are_lists_have_no_fields(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[1, 2]\n")

    with pytest.raises(BadInputError, match=r"the first one of a.jsonl has none"):
        _plan(tmp_path, "jsonl", InputFields("id"))


@pytest.mark.parametrize(
    ("form", "text", "told"),
    [
        (
            "jsonl",
            "\n \nid,x\na,1\n",
            "the first, line 3, is 'id,x'; it may be csv",
        ),
        ("jsonl", '[\n  {"x":\n 1 }\n]\n', r"line 1, is '\['; it may be json\."),
        ("jsonl", "\ufeffone\ntwo\n", r"line 1, is 'one'\."),
        ("json", "[a, b]", r"no record of it is JSON: It is no JSON \(.*\): a"),
    ],
)
def test_a_file_of_another_format_is_told_by_its_first_line(
    tmp_path: Path, form: str, text: str, told: str
) -> None:
    (tmp_path / "b.txt").write_text(text)
    (tmp_path / "a.txt").write_text('{"x": 1}')

    with pytest.raises(
        BadInputError, match=rf"b\.txt cannot be read as {form}: .*{told}"
    ) as raised:
        _plan(tmp_path, form, InputFields())

    assert raised.value.code == "InputMalformed"


def test_a_malformed_record_alone_in_its_file_is_an_error_among_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": ')
    (tmp_path / "b.jsonl").write_text("{\n{}")

    assert _plan(tmp_path, "jsonl", InputFields()).rows == 3


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_an_input_without_a_record_that_can_be_read_is_refused(tmp_path: Path, form: str) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("id,x")

    with pytest.raises(BadInputError, match=r"no record can be read, the first one in a\.txt: It"):
        _plan(tmp_path, form, InputFields("id"))


def test_empty_tables_have_no_records(tmp_path: Path) -> None:
    table: dict[str, list[Any]] = {"id": [], "x": []}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")

    with pytest.raises(BadInputError, match="the 1 files have no records"):
        _plan(tmp_path, "parquet", InputFields("idd"))
