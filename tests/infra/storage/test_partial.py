"""The folder of a fetch that has not ended."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from infra.storage import partial
from tests.infra.storage.contract import read_tree, write_tree


def test_no_list_is_searched_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Names(list[str]):
        def __contains__(self, _: object) -> bool:
            raise AssertionError("this takes quadratic time")

    walk = partial.os.walk
    monkeypatch.setattr(
        partial.os, "walk",
        lambda *given, **how: ((f, Names(d), Names(n)) for f, d, n in walk(*given, **how)),
    )  # fmt: skip
    with partial.opened(tmp_path / "copy", "s3://x/y") as hidden:
        assert hidden is not None
        write_tree(hidden.data, {"kept/a": "1", "kept/gone": "2", "gone/b": "3"})
        hidden.prepare(Names(["kept/a", "new/c"]))
        assert read_tree(hidden.data) == {"kept/a": "1"}
        assert {path.name for path in hidden.data.iterdir()} == {"kept", "new"}


def test_a_mount_without_locks_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(partial.fcntl, "flock", without)

    with partial.locked(tmp_path / "folder"):
        assert (tmp_path / "folder").is_dir()


def test_an_owner_may_remove_the_folder_while_another_one_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    mkdir = os.mkdir

    def just_removed(path: Path, *how: int) -> None:
        try:
            mkdir(path, *how)
        except FileExistsError:
            folder.rmdir()
            raise

    monkeypatch.setattr(os, "mkdir", just_removed)
    with partial.locked(folder):
        assert folder.is_dir()
