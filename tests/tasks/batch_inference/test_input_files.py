"""Which files are read, and the plan of their parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from infra import storage
from infra.errors import BadInputError, NotFoundError
from tasks.batch_inference import input_files, planning, splitting
from tasks.batch_inference.input_files import InputFile
from tasks.batch_inference.planning import Plan, PlannedFile, PlannedPiece
from tasks.batch_inference.splitting import FilePart
from tests.infra.storage.conftest import Bucket
from tests.infra.storage.contract import as_nobody, write_tree

NAMES = ["a.json", "b.jsonl", "july/a.jsonl", "july/x/c.jsonl", "june/[1].jsonl"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("1\n")
    return tmp_path / "in"


def _chosen(folder: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    found = input_files.select(storage.store(str(folder)), include, exclude)
    return [file.name for file in found]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], NAMES),
        (["*.jsonl"], [], NAMES[1:]),
        (["*.json"], [], ["a.json"]),
        (["july/*.jsonl"], [], ["july/a.jsonl"]),
        (["july/**/*.jsonl"], [], ["july/a.jsonl", "july/x/c.jsonl"]),
        (["july/**"], [], ["july/a.jsonl", "july/x/c.jsonl"]),
        (["**/a.*"], [], ["a.json", "july/a.jsonl"]),
        (["a.json?"], [], ["july/a.jsonl"]),
        (["[!ac].jsonl"], [], ["b.jsonl"]),
        (["[[]1].jsonl"], [], ["june/[1].jsonl"]),
        (["a.json", "july/**"], ["*.jsonl"], ["a.json"]),
        ([], ["july/**", "june/**"], ["a.json", "b.jsonl"]),
    ],
)
def test_patterns_choose_files_and_exclude_wins(
    folder: Path, include: list[str], exclude: list[str], expected: list[str]
) -> None:
    assert _chosen(folder, include, exclude) == expected


ODD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "lost": lambda path: path.symlink_to("../../nothing"),
    "itself": lambda path: path.symlink_to(path),
    "linked": lambda path: path.symlink_to("/etc"),
    "file": lambda path: path.symlink_to("/etc/hostname"),
    "loop": lambda path: path.symlink_to("."),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    ("include", "exclude"),
    [
        (["july/*.jsonl"], []),
        (["*.jsonl"], ["june/odd", "june/odd/**", "june/*.jsonl", "july/x/**", "b.jsonl"]),
        ([], ["june/**", "*/x/**", "b.jsonl", "*.json"]),
    ],
)
def test_what_is_left_out_may_be_anything(
    folder: Path, name: str, include: list[str], exclude: list[str]
) -> None:
    ODD[name](folder / "june" / "odd")

    assert _chosen(folder, include, exclude) == ["july/a.jsonl"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("pipe", "NotAFile"), ("lost", "LinkPointsOutside"), ("linked", "LinkPointsOutside"),
        ("file", "LinkPointsOutside"), ("loop", "LinkLoops"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("include", [[], ["june/**"], ["odd*", "*.conf"]])
def test_what_may_be_chosen_is_no_odd_thing(
    folder: Path, name: str, code: str, include: list[str]
) -> None:
    ODD[name](folder / "june" / "odd")

    with pytest.raises(BadInputError) as caught:
        _chosen(folder, include)
    assert caught.value.code == code


def test_a_folder_that_may_not_be_read_is_not_entered(open_to_all: Path) -> None:
    source = write_tree(open_to_all / "in", {"a.jsonl": "1", "lost+found/b.jsonl": "2"})
    (source / "lost+found").chmod(0)

    with as_nobody():
        assert _chosen(source, [], ["lost+found/**"]) == ["a.jsonl"]
        with pytest.raises(BadInputError) as caught:
            _chosen(source)
    assert caught.value.code == "NotReadable"


@pytest.mark.integration
def test_keys_that_are_left_out_may_be_no_paths(bucket: Bucket) -> None:
    for key in ("in/a.jsonl", "in//b.txt", "in/x/../c.txt"):
        bucket.put(key, "1")
    found = storage.store(f"s3://{bucket.name}/in")

    assert [file.name for file in input_files.select(found, ["*.jsonl"], [])] == ["a.jsonl"]
    with pytest.raises(BadInputError) as caught:
        input_files.select(found, [], [])
    assert caught.value.code == "PathClimbs"


def test_a_single_file_is_an_input(folder: Path) -> None:
    assert _chosen(folder / "b.jsonl") == ["b.jsonl"]
    assert _chosen(folder / "b.jsonl", ["*.jsonl"]) == ["b.jsonl"]


def test_an_input_without_files_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(
        BadInputError, match=r"no files at .*/in that include \['\*\.csv'\] and ex"
    ):
        _chosen(folder, ["*.csv"])
    with pytest.raises((BadInputError, NotFoundError)):
        _chosen(tmp_path / "empty")
    with pytest.raises(NotFoundError):
        _chosen(tmp_path / "none")


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_files, "MOST_FILES", 4)

    with pytest.raises(BadInputError, match="more than 4 files are chosen"):
        _chosen(folder)


@pytest.mark.parametrize("pattern", ["", "/a.json", "../a.json", "x/../../a"])
def test_patterns_that_fit_nothing_are_refused(pattern: str) -> None:
    input_files.check_patterns("include", ["*.json", "july/**/*.json"])

    with pytest.raises(BadInputError, match="include: the pattern"):
        input_files.check_patterns("include", [pattern])


def _plan(folder: Path, form: str = "jsonl", size: int = 10) -> Plan:
    files = input_files.select(storage.store(str(folder)), (), ())
    return planning.make(folder, files, form, lambda: None, size)


def test_the_parts_of_files_are_numbered_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 4)
    (tmp_path / "a.jsonl").write_text("1\n" * 12)
    (tmp_path / "b.jsonl").write_text("\n\n")
    (tmp_path / "c.jsonl").write_text("5\n")

    plan = _plan(tmp_path)
    parts = plan.pieces(tmp_path)

    assert plan.rows == sum(part.part.rows for part in parts) == 13
    assert [part.number for part in parts] == list(range(len(parts)))
    assert [file.first for file in plan.files] == [0, len(parts) - 1, len(parts) - 1]
    assert [len(file.parts) for file in plan.files] == [len(parts) - 1, 0, 1]
    assert len(parts) > 2


@pytest.mark.parametrize(
    ("files", "shards", "parts"),
    [(1000, 1, 4), (3000, 1, 12), (8, 1, 4), (8, 2, 8), (8, 4, 8), (3, 1, 3), (1000, 3, 13)],
)
def test_small_files_share_parts(tmp_path: Path, files: int, shards: int, parts: int) -> None:
    found = [
        PlannedFile(str(at), 100, 0, 0, [FilePart(0, 100, 0, 1)] if at != 1 else [])
        for at in range(files)
    ]

    plan = planning.combine(found, shards)

    pieces = plan.pieces(tmp_path)
    assert [piece.file for piece in pieces] == [at for at in range(files) if at != 1]
    assert {piece.number for piece in pieces} == set(range(plan.part_count))
    assert abs(plan.part_count - parts) <= 1
    shared = planning.share(pieces, shards)
    numbers = [{piece.number for piece in some} for some in shared]
    assert len(shared) == min(shards, files - 1)
    assert sum(map(len, numbers)) == plan.part_count  # no part is shared by two


def test_a_large_file_shares_no_part_but_its_last() -> None:
    large = [FilePart(0, 40, 0, 1), FilePart(40, 50, 1, 1)]
    parts = [[FilePart(0, 10, 0, 1)], large, [FilePart(0, 10, 0, 1)], [FilePart(0, 10, 0, 1)]]
    found = [
        PlannedFile(str(at), sum(part.end - part.start for part in some), 0, 0, some)
        for at, some in enumerate(parts)
    ] * 8

    plan = planning.combine(found, 1, 60)

    assert [file.first for file in plan.files[:5]] == [0, 1, 2, 3, 3]
    numbers = [piece.number for piece in plan.pieces(Path())]
    assert numbers == sorted(numbers)


def test_a_plan_is_kept_and_holds_only_for_the_same_files(folder: Path, tmp_path: Path) -> None:
    plan = _plan(folder)
    planning.write(plan, tmp_path / "plan.json")
    assert planning.read(tmp_path / "plan.json") == plan
    assert planning.read(tmp_path / "none.json") is None
    planning.check_unchanged(plan, folder)

    os.utime(folder / "b.jsonl", ns=(0, 0))
    with pytest.raises(BadInputError, match=r"b\.jsonl was changed or removed"):
        planning.check_unchanged(plan, folder)
    (folder / "b.jsonl").unlink()
    with pytest.raises(BadInputError, match=r"b\.jsonl was changed or removed"):
        planning.check_unchanged(plan, folder)


def test_files_without_records_or_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(BadInputError, match="the 1 files have no records"):
        _plan(tmp_path)
    with pytest.raises(BadInputError, match=r"a\.jsonl cannot be read as parquet"):
        _plan(tmp_path, "parquet")


@pytest.mark.parametrize(
    ("sizes", "shards", "expected"),
    [
        ([10, 10, 10, 10], 2, [[0, 1], [2, 3]]),
        ([10, 10, 10], 5, [[0], [1], [2]]),
        ([100, 1, 1, 1], 2, [[0], [1, 2, 3]]),
        ([1, 1, 1, 100], 2, [[0, 1, 2], [3]]),
        ([0, 0], 2, [[0, 1]]),
        ([5], 3, [[0]]),
    ],
)
def test_shards_share_parts_by_their_bytes(
    sizes: list[int], shards: int, expected: list[list[int]]
) -> None:
    parts = [PlannedPiece(at, Path("a"), FilePart(0, size, 0, 1)) for at, size in enumerate(sizes)]

    shared = planning.share(parts, shards)

    assert [[part.number for part in some] for some in shared] == expected


def test_files_of_a_bucket_are_fetched_once(tmp_path: Path, folder: Path) -> None:
    class Remote:
        """A folder that cannot be read in place."""

        uri = str(folder)

        def in_place(self) -> None:
            return None

        def is_directory(self) -> bool:
            return True

    files = [InputFile("b.jsonl", 2), InputFile("july/x/c.jsonl", 2)]
    staged = tmp_path / "staged"

    assert input_files.local(Remote(), files, staged) == staged  # type: ignore[arg-type]
    (staged / "b.jsonl").write_text("kept")
    input_files.local(Remote(), files, staged)  # type: ignore[arg-type]

    assert (staged / "b.jsonl").read_text() == "kept"
    assert (staged / "july/x/c.jsonl").read_text() == "1\n"
    assert sorted(path.name for path in staged.rglob("*") if path.is_file()) == [
        "b.jsonl", "c.jsonl",
    ]  # fmt: skip
