"""What every store must do; each implementation's tests inherit this class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from infra.errors import BadInputError, NotFoundError
from infra.storage import Store

Tree = dict[str, str]


def write_tree(root: Path, tree: Tree) -> Path:
    """Write ``{"folder/file": "text"}`` below ``root``; ``"-> target"`` makes a link."""
    root.mkdir(parents=True, exist_ok=True)
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text)
    return root


def read_tree(root: Path) -> Tree:
    """What ``write_tree`` would write."""
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}"
        if path.is_symlink()
        else path.read_text()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


class StoreContract(ABC):
    """Tests of one implementation, which says how to make and look into its stores."""

    @abstractmethod
    def store(self, name: str) -> Store:
        """The store of the object or folder ``name``."""

    @abstractmethod
    def fill(self, name: str, content: Tree | str) -> None:
        """Put a folder, or a file, under ``name``."""

    @abstractmethod
    def stored(self, name: str) -> Tree:
        """The folder that is under ``name``."""

    @abstractmethod
    def everything(self) -> set[str]:
        """Every name that the stores' root holds."""

    def test_nothing_is_there_at_first(self) -> None:
        assert not self.store("new").exists()
        assert not self.store("new").is_directory()

    def test_a_folder_and_a_file_are_told_apart(self) -> None:
        self.fill("folder", {"a": "1"})
        self.fill("file", "text")

        assert self.store("folder").exists()
        assert self.store("folder").is_directory()
        assert self.store("file").exists()
        assert not self.store("file").is_directory()

    def test_the_uri_is_kept(self) -> None:
        assert self.store("folder").uri.endswith("folder")

    def test_a_folder_is_fetched_whole(self, tmp_path: Path) -> None:
        tree = {"a": "1", "deep/er/b": "2", "deep/.hidden": "3", "sp ace": "4", "über": "5"}
        self.fill("folder", tree)

        self.store("folder").fetch(tmp_path / "new" / "copy")

        assert read_tree(tmp_path / "new" / "copy") == tree
        assert self.stored("folder") == tree
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]

    def test_a_file_is_fetched(self, tmp_path: Path) -> None:
        self.fill("file", "text")

        self.store("file").fetch(tmp_path / "new" / "copy")

        assert (tmp_path / "new" / "copy").read_text() == "text"
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]

    def test_what_is_not_there_cannot_be_fetched(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError):
            self.store("nothing").fetch(tmp_path / "copy")

        assert not (tmp_path / "copy").exists()

    def test_in_place_are_the_bytes_themselves_or_nothing(self) -> None:
        self.fill("folder", {"a": "1"})

        place = self.store("folder").in_place()

        assert place is None or read_tree(place) == {"a": "1"}

    def test_a_folder_is_published(self, tmp_path: Path) -> None:
        tree = {"a": "1", "deep/er/b": "2"}

        self.store("out/new").check_writable()
        self.store("out/new").publish(write_tree(tmp_path / "source", tree))

        assert self.stored("out/new") == tree
        assert read_tree(tmp_path / "source") == tree
        assert self.everything() == {"out/new/a", "out/new/deep/er/b"}

    @pytest.mark.parametrize(
        ("before", "published", "after"),
        [
            ({"a": "old"}, {"a": "new"}, {"a": "new"}),
            ({"a": "old"}, {"b": "new"}, {"a": "old", "b": "new"}),
            ({"d/gone": "old", "e/kept": "old"}, {"d/a": "new"}, {"d/a": "new", "e/kept": "old"}),
            ({"x/inside": "old"}, {"x": "new"}, {"x": "new"}),
            ({"x": "old"}, {"x/inside": "new"}, {"x/inside": "new"}),
        ],
        ids=["same file", "other file", "same folder", "file over folder", "folder over file"],
    )
    def test_entries_of_the_same_name_are_replaced_whole(
        self, tmp_path: Path, before: Tree, published: Tree, after: Tree
    ) -> None:
        self.fill("out", before)

        self.store("out").check_writable()
        self.store("out").publish(write_tree(tmp_path / "source", published))

        assert self.stored("out") == after
        assert self.everything() == {f"out/{name}" for name in after}

    def test_a_file_is_no_place_to_publish(self) -> None:
        self.fill("file", "text")

        with pytest.raises(BadInputError):
            self.store("file").check_writable()

    def test_looking_changes_nothing(self) -> None:
        self.store("new").check_writable()
        self.store("new").exists()

        assert self.everything() == set()
