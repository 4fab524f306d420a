"""The output and its manifest: every record once, in its order, with its checksum."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra import storage
from infra.errors import BadInputError, ModelyardError
from tasks.batch_inference import (
    input_files,
    joined_parts,
    output_files,
    part_reading,
    planning,
    splitting,
)
from tasks.batch_inference.part_results import PartFiles, PartWriter
from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.reading import BadRecord
from tasks.batch_inference.splitting import FilePart


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 8)
    monkeypatch.setattr(joined_parts, "_CHUNK", 5)


def _predicted(folder: Path, parts: Path, form: str) -> planning.Plan:
    """Have each record predict itself; those that are 13 fail."""
    files = input_files.select(storage.store(str(folder)), (), ())
    plan = planning.make(folder, files, form, lambda: None, 10)
    parts.mkdir()
    for number, pieces in itertools.groupby(plan.pieces(folder), lambda piece: piece.number):
        with PartWriter(PartFiles(parts, number)) as writer:
            for one in part_reading.read(pieces, form, 1):
                if isinstance(one, PlannedPiece):
                    writer.begin(one.part, one.file)
                elif isinstance(one, BadRecord):
                    writer.fail(one.row, None, one.reason)
                elif one.columns["input"].tolist() == [13]:
                    writer.fail(one.rows[0], "k", "unlucky")
                else:
                    writer.write(one.rows, None, {"prediction": np.array(one.columns["input"])})
            writer.commit({"part": number})
    return plan


def _put(plan: planning.Plan, parts: Path, output: Path, form: str) -> dict[str, Any]:
    output.mkdir()
    joined = output_files.put_together(output, plan, parts, form, {"model": "m"}, lambda: None)
    assert joined.statistics == [{"part": number} for number in range(plan.part_count)]
    return joined.manifest


@pytest.mark.parametrize("rows", [[1], [0]])
def test_a_part_that_lacks_a_row_does_not_count(tmp_path: Path, rows: list[int]) -> None:
    with PartWriter(PartFiles(tmp_path, 0)) as writer:
        writer.begin(FilePart(0, 9, 5, 2))
        writer.write(rows, None, {"prediction": np.array([1])})
        with pytest.raises(RuntimeError, match=f"Record {1 - rows[0]} of 2 has no result"):
            writer.commit({})
    assert PartFiles(tmp_path, 0).read_summary() is None


def test_lines(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "july").mkdir(parents=True)
    (source / "a.jsonl").write_text("".join(f"{at}\n" for at in range(20)))
    (source / "july" / "b.jsonl").write_text("1\n{\n3")
    (source / "july" / "empty.jsonl").write_text("")

    plan = _predicted(source, tmp_path / "parts", "jsonl")
    manifest = _put(plan, tmp_path / "parts", tmp_path / "out", "jsonl")

    lines = (tmp_path / "out" / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"row": at, "prediction": at} for at in range(20) if at != 13
    ]
    assert (tmp_path / "out" / "july" / "empty.jsonl").read_text() == ""
    errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").open()]
    assert errors[0] == {"file": "a.jsonl", "row": 13, "key": "k", "error": "unlucky"}
    assert (errors[1]["file"], errors[1]["row"]) == ("july/b.jsonl", 1)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    assert (manifest["rows"], manifest["predicted"], manifest["failed"]) == (23, 21, 2)
    assert manifest["model"] == "m"
    for one in [*manifest["files"], manifest["errors"]]:
        data = (tmp_path / "out" / one["name"]).read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("text", "expected", "failed"),
    [
        ("[1, 2, 13, 4]", [1, 2, 4], 1),
        ("[13, 1]", [1], 1),
        ("[1, 13]", [1], 1),
        ("[13]", [], 1),
        (json.dumps(list(range(100))), [at for at in range(100) if at != 13], 1),
    ],
)
def test_an_array_gives_an_array(
    tmp_path: Path, text: str, expected: list[int], failed: int
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(text)

    plan = _predicted(tmp_path / "in", tmp_path / "parts", "json")
    manifest = _put(plan, tmp_path / "parts", tmp_path / "out", "json")

    found = json.loads((tmp_path / "out" / "a.json").read_text())
    assert [one["prediction"] for one in found] == expected
    assert manifest["failed"] == failed


def test_one_record_gives_one_record_and_a_fault_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text("7")
    (tmp_path / "in" / "b.json").write_text("[8, 9")

    plan = _predicted(tmp_path / "in", tmp_path / "parts", "json")
    manifest = _put(plan, tmp_path / "parts", tmp_path / "out", "json")

    assert json.loads((tmp_path / "out" / "a.json").read_text()) == {"row": 0, "prediction": 7}
    assert len(json.loads((tmp_path / "out" / "b.json").read_text())) == 2
    assert [one["fault"] != "" for one in manifest["files"]] == [False, True]
    (_, cut) = manifest["files"]
    assert output_files.cut_off(manifest) == (
        f", 1 file ends too early ({cut['input']}: {cut['fault']})"
    )
    assert output_files.cut_off({"files": manifest["files"][:1]}) == ""
    assert ", 2 files end too early (" in output_files.cut_off({"files": [cut, cut]})
    (error,) = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").open()]
    assert (error["file"], error["row"]) == ("b.json", None)
    assert error["error"].startswith("the array is not closed")


@pytest.mark.parametrize("damage", ["missing", "changed", "no summary", "fewer rows"])
def test_results_that_are_not_what_was_written_are_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("1\n2\n3\n4\n5\n6\n")
    plan = _predicted(tmp_path / "in", tmp_path / "parts", "jsonl")
    files = PartFiles(tmp_path / "parts", 0)
    if damage == "missing":
        files.results.unlink()
    elif damage == "changed":
        files.results.write_bytes(files.results.read_bytes().replace(b"1", b"2"))
    elif damage == "no summary":
        files.summary.write_text("{")
    else:
        text = files.summary.read_text()
        rows = json.loads(text)["pieces"][0]["rows"]
        files.summary.write_text(text.replace(f'"rows":{rows}', f'"rows":{rows - 1}', 1))

    with pytest.raises(ModelyardError, match=r"The results of part 0, of a\.jsonl") as caught:
        _put(plan, tmp_path / "parts", tmp_path / "out", "jsonl")
    assert caught.value.code == "ResultsDamaged"


@pytest.mark.parametrize(
    ("files", "form", "message"),
    [
        (
            ["a.csv", "a.txt"],
            "csv",
            r"the results of a\.txt and the results of a\.csv would both be a\.jsonl",
        ),
        (["manifest.json"], "json", "and the manifest would both"),
        (["errors.csv"], "csv", "and the errors would both"),
        ([".publishing.json"], "json", "and the journal would both"),
        (
            ["a.csv", "a.jsonl/b.csv"],
            "csv",
            r"the results of a\.csv would be a\.jsonl, which is a folder with those of a\.jsonl/b",
        ),
        (
            ["x/a.jsonl/y/b.csv", "x/a.txt"],
            "csv",
            r"x/a\.txt would be x/a\.jsonl, which is a folder with those of x/a\.jsonl/y/b\.csv",
        ),
        (
            ["manifest.json/a.json"],
            "json",
            r"the manifest would be manifest\.json, which is a fol",
        ),
    ],
)
def test_outputs_that_would_take_each_others_name_are_refused(
    files: list[str], form: str, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        output_files.names_of(files, form)


@pytest.mark.parametrize(
    ("name", "is_short"),
    [("x" * 249, True), ("x" * 250, False), ("ü" * 125, False), ("x" * 251 + ".csv", False)],
)
def test_a_name_that_no_file_system_has_is_refused_before_anything_is_predicted(
    name: str, *, is_short: bool
) -> None:
    file = f"{'folder' * 40}/{name}"
    if is_short:
        assert output_files.names_of([file], "csv")[-1] == f"{file}.jsonl"
        return
    with pytest.raises(BadInputError) as raised:
        output_files.names_of([file], "csv")
    assert raised.value.code == "OutputNameTooLong"


def test_the_names_of_outputs() -> None:
    output_files.names_of(["a.csv", "x/a.csv", "a.b.csv", "data"], "csv")
    names = [output_files.name_of(one, "csv") for one in ("x/a.csv", "a.b.csv", "data", "v1.2")]
    assert names == ["x/a.jsonl", "a.b.jsonl", "data.jsonl", "v1.2.jsonl"]
    assert output_files.name_of("a.json", "json") == "a.json"
