from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.errors import ModelyardError
from infra.storage import copying as file_storage
from tasks.training import checkpoints
from tasks.training.checkpoints import mirrored
from tests.infra.storage.contract import read_tree, write_tree
from tests.processes import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def told() -> list[str]:
    return []


def test_nowhere_is_nothing(folder: Path, told: list[str]) -> None:
    with mirrored(folder, "", seconds=0.01, warn=told.append):
        (folder / "a").write_text("1")

    assert list(folder.parent.iterdir()) == [folder]


def test_what_is_there_at_the_end_is_kept(folder: Path, kept: Path, told: list[str]) -> None:
    tree = {"a.pt": "1", "step-2/model": "2", "step-2/deep/state": "3"}

    with mirrored(folder, str(kept), seconds=600, warn=told.append):
        write_tree(folder, tree)
        (folder / ".half").write_text("x")
        (folder / "empty").mkdir()

    assert read_tree(kept) == tree
    assert read_tree(folder) == {**tree, ".half": "x"}
    assert list(folder.parent.iterdir()) == [folder]
    assert told == []


def test_what_is_new_is_kept_meanwhile(folder: Path, kept: Path, told: list[str]) -> None:
    with mirrored(folder, str(kept), seconds=0.02, warn=told.append):
        write_tree(folder, {"one": "1"})
        eventually(lambda: _has(kept, {"one": "1"}), "the first is kept")
        write_tree(folder, {"two": "2"})
        eventually(lambda: _has(kept, {"one": "1", "two": "2"}), "the second is kept")


def _has(kept: Path, files: dict[str, str]) -> bool:
    """Whether the files are kept; not while a copy renames what is read."""
    try:
        return kept.exists() and read_tree(kept) == files
    except FileNotFoundError:
        return False


def test_only_what_changed_is_copied(folder: Path, kept: Path) -> None:
    mirror = checkpoints._Mirror(folder, str(kept))
    write_tree(folder, {"one": "1", "deep/a": "a", "deep/b": "b"})
    mirror.copy()
    (kept / "one").write_text("changed by somebody else")
    (folder / "deep" / "a").write_text("longer")
    (folder / "deep" / "b").unlink()

    mirror.copy()

    assert read_tree(kept) == {"one": "changed by somebody else", "deep/a": "longer"}


def test_a_copy_that_fails_is_told_and_tried_again(
    folder: Path, kept: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with mirrored(folder, str(kept), seconds=0.02, warn=told.append):
        with monkeypatch.context() as broken:
            broken.setattr(file_storage.shutil, "copytree", full)
            write_tree(folder, {"one": "1"})
            eventually(lambda: bool(told), "the failure is told")
        eventually(lambda: kept.exists() and read_tree(kept) == {"one": "1"}, "it is kept")


def test_the_last_copy_must_not_fail(folder: Path, tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "file").write_text("")
    target = str(tmp_path / "file" / "below")

    with (
        pytest.raises((ModelyardError, OSError)),
        mirrored(folder, target, seconds=600, warn=told.append),
    ):
        write_tree(folder, {"one": "1"})


def test_after_another_error_it_is_only_told(
    folder: Path, tmp_path: Path, told: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    target = str(tmp_path / "file" / "below")

    with pytest.raises(KeyError), mirrored(folder, target, seconds=600, warn=told.append):
        write_tree(folder, {"one": "1"})
        raise KeyError

    assert len(told) == 1


def test_after_another_error_it_is_kept(folder: Path, kept: Path, told: list[str]) -> None:
    with pytest.raises(KeyError), mirrored(folder, str(kept), seconds=600, warn=told.append):
        write_tree(folder, {"one": "1"})
        raise KeyError

    assert read_tree(kept) == {"one": "1"}


def test_a_file_that_goes_meanwhile_is_no_error(
    folder: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(folder, {"deep/stays": "1", "deep/goes": "2"})
    link = os.link

    def racing(source: Path, target: Path, **options: bool) -> None:
        (folder / "deep" / "goes").unlink(missing_ok=True)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", racing)
    checkpoints._Mirror(folder, str(kept)).copy()

    assert read_tree(kept) == {"deep/stays": "1"}


def test_all_at_once(folder: Path, kept: Path) -> None:
    write_tree(folder, {"one": "1"})

    checkpoints.copy(folder, "")
    checkpoints.copy(folder / "none", str(kept))
    assert not kept.exists()
    checkpoints.copy(folder, str(kept))
    assert read_tree(kept) == {"one": "1"}
