"""Copies of files that are killed at every step, and repeated."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, ConflictError, DiskFullError
from infra.storage import Store, copying, store, tree
from infra.storage.base import FilesExistError
from tests.infra.storage.children import STRIDE, killed_at
from tests.infra.storage.contract import Tree, read_tree, write_tree

pytestmark = pytest.mark.integration

_OLD: Tree = {"a": "old", "d/x": "old", "d/y": "old", "f": "old", "g/z": "old", "kept": "old"}
_NEW: Tree = {"a": "new", "d/x": "new", "f/inside": "new", "g": "new", "link": "-> a"}
_FIRST = ("a", "d", "f", "g")
# What is merged has no file where a folder is, and no folder where a file is.
_OLD_FILES: Tree = {"a": "old", "d/x": "old", "d/own": "old", "d/e/own": "old", "link": "-> d/x"}
_NEW_FILES: Tree = {"a": "new", "d/x": "new", "d/e/y": "new", "f/z": "new", "link": "-> a"}


def _swap(source: Path, target: Store) -> None:
    target.publish(source, whole_entries=True)


def _entry(tree: Tree, first: str) -> Tree:
    return {name: text for name, text in tree.items() if name.split("/")[0] == first}


def _full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_merge_that_is_killed_anywhere_loses_nothing_and_is_completed_by_its_repeat(
    tmp_path: Path,
) -> None:
    source = write_tree(tmp_path / "source", _NEW_FILES)
    step, killed, mixed = 0, True, 0
    while killed:
        root = tmp_path / str(step)
        target = store(str(write_tree(root / "out", _OLD_FILES)))
        killed = killed_at(step, lambda target=target: target.publish(source))  # type: ignore[misc]

        found = {name: read_tree(root / "out").get(name) for name in _OLD_FILES | _NEW_FILES}
        assert all(
            text in {_OLD_FILES.get(name), _NEW_FILES.get(name)} for name, text in found.items()
        )
        assert not any("partial" in entry.name for entry in target.entries())
        mixed += found not in (
            dict.fromkeys(found) | _OLD_FILES, dict.fromkeys(found) | _OLD_FILES | _NEW_FILES
        )  # fmt: skip

        target.publish(source)
        assert read_tree(root) == {
            f"out/{name}": text for name, text in (_OLD_FILES | _NEW_FILES).items()
        }
        assert not [path for path in root.rglob("*") if "partial" in path.name]
        step += STRIDE
    assert mixed * STRIDE > 3


@pytest.mark.parametrize(
    "before", [_OLD, pytest.param(None, marks=pytest.mark.soak)], ids=["there", "new"]
)
def test_whole_entries_that_are_killed_anywhere_are_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Tree | None
) -> None:
    source = write_tree(tmp_path / "source", _NEW)
    after = {**_NEW, "kept": "old"} if before else _NEW
    step = aside = 0
    while True:
        root = tmp_path / str(step)
        target = store(str(root / "out"))
        write_tree(root / "out", before) if before else root.mkdir()

        killed = killed_at(step, lambda target=target: _swap(source, target))  # type: ignore[misc]
        listed = [entry.name for entry in target.entries()] if target.exists() else []
        assert not any("partial" in name for name in listed)
        aside += before is not None and not {"d", "f", "g"} <= {n.split("/")[0] for n in listed}

        with monkeypatch.context() as broken, pytest.raises(DiskFullError):
            broken.setattr(shutil, "copytree", _full)
            _swap(source, target)
        found = read_tree(root / "out") if before or target.exists() else _NEW
        for first in _FIRST:
            assert _entry(found, first) in (_entry(_NEW, first), _entry(_OLD, first))
        assert not [path for path in root.rglob("*") if "partial" in path.name]

        _swap(source, target)
        assert read_tree(root / "out") == after
        assert not [path for path in root.rglob("*") if "partial" in path.name]
        if not killed:
            break
        step += 1  # at each: old entries are aside for one call alone
    assert step > 15
    assert bool(aside) is bool(before)  # some kills came where an old entry was moved aside


def test_whole_entries_that_are_killed_anywhere_are_mended_by_a_repeat(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", _NEW)
    step, killed = 0, True
    while killed:
        root = tmp_path / str(step)
        target = store(str(write_tree(root / "out", _OLD)))
        killed = killed_at(step, lambda target=target: _swap(source, target))  # type: ignore[misc]

        _swap(source, target)

        assert read_tree(root) == {f"out/{n}": text for n, text in {**_NEW, "kept": "old"}.items()}
        assert [path.name for path in root.iterdir()] == ["out"]
        assert not (root / "out" / ".entries.copy.partial").exists()
        step += STRIDE


@pytest.mark.parametrize(
    "name", ["", pytest.param("a", marks=pytest.mark.soak)], ids=["folder", "file"]
)
def test_a_fetch_that_is_killed_anywhere_is_mended(tmp_path: Path, name: str) -> None:
    source = store(str(write_tree(tmp_path / "source", _NEW) / name))
    step, killed = 0, True
    while killed:
        root = tmp_path / str(step)
        root.mkdir()
        copy = root / "copy"
        killed = killed_at(step, lambda copy=copy: source.fetch(copy))  # type: ignore[misc]

        if copy.exists():
            with pytest.raises(ConflictError):
                source.fetch(copy)
        else:
            source.fetch(copy)

        assert (copy.read_text() if name else read_tree(copy)) == ("new" if name else _NEW)
        assert [path.name for path in root.iterdir()] == ["copy"]
        step += 1
    assert step > 8


def test_an_old_entry_that_was_half_removed_is_not_brought_back(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"d/x": "new"})
    step, killed = 0, True
    while killed:
        folder = write_tree(tmp_path / str(step), {"d/x": "old", "d/y": "old"})
        target = store(str(folder))
        killed = killed_at(step, lambda target=target: _swap(source, target))  # type: ignore[misc]
        shutil.rmtree(folder / "d", ignore_errors=True)

        target.publish(write_tree(tmp_path / "other", {"b": "1"}))

        assert read_tree(folder) in ({"b": "1"}, {"b": "1", "d/x": "old", "d/y": "old"})
        step += 1


@pytest.mark.parametrize("way", ["linked", "renamed"])
@pytest.mark.parametrize("name", ["a", "d/x", "list", "f"])
def test_a_file_that_comes_while_others_become_visible_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, name: str
) -> None:
    place = write_tree(tmp_path / "out", {"d/own": "old"})
    source = write_tree(
        tmp_path / "source", {"a": "new", "d/x": "new", "f/y": "new", "list": "new"}
    )
    versions = tree.versions

    def before(folder: Path, names: Any) -> Any:
        found = versions(folder, names)
        write_tree(place, {name: "mine"})
        return found

    with monkeypatch.context() as changed:
        changed.setattr(copying.tree, "versions", before)
        if way == "renamed":
            changed.setattr(os, "link", _without_links)
        with pytest.raises((FilesExistError, BadInputError)) as raised:
            store(str(place)).publish(source, last="list", replaceable={})

    assert raised.value.code == ("NotADirectory" if name == "f" else "FilesExist")
    assert (place / name).read_text() == "mine"
    (place / name).unlink()
    store(str(place)).publish(source, last="list")
    assert read_tree(place) == {**read_tree(source), "d/own": "old"}


def _without_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_file_system_without_links_has_new_files_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _without_links)
    place = write_tree(tmp_path / "out", {"d/own": "old"})
    source = write_tree(tmp_path / "source", {"a": "new", "d/x": "new", "list": "new"})

    store(str(place)).publish(source, last="list", replaceable={})

    assert read_tree(place) == {**read_tree(source), "d/own": "old"}


def test_a_new_folder_that_comes_to_have_files_is_published_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tree(tmp_path / "source", {"a": "new", "d/x": "new"})
    place, copy = tmp_path / "out", copying._copy

    def meanwhile(*given: Path) -> None:
        copy(*given)
        write_tree(place, {"d/own": "mine"})

    monkeypatch.setattr(copying, "_copy", meanwhile)

    store(str(place)).publish(source, replaceable={})

    assert read_tree(tmp_path) == {
        **{f"source/{name}": text for name, text in read_tree(source).items()},
        "out/a": "new", "out/d/x": "new", "out/d/own": "mine",
    }  # fmt: skip


def test_publishes_to_one_folder_wait_for_each_other(tmp_path: Path) -> None:
    sources = [
        write_tree(tmp_path / f"source{n}", {f"d/{i}": str(n) for i in range(20)})
        for n in range(4)
    ]
    target = store(str(tmp_path / "root" / "out"))
    children = []
    for source in sources:
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(10):
                    target.publish(source)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)

    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert read_tree(tmp_path / "root" / "out") in [read_tree(source) for source in sources]
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "root" / "out").iterdir()] == ["d"]
