"""What every store must do; each implementation's tests inherit this class."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.storage import Store, StoreEntry
from infra.storage.base import EntryFilter, FilesExistError

Tree = dict[str, str]
_NOBODY = 65534


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Permissions count: root passes them all."""
    if os.getuid() != 0:
        yield
        return
    os.setresgid(_NOBODY, _NOBODY, 0)
    os.setresuid(_NOBODY, _NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


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

    def test_what_is_removed_is_gone_and_its_neighbours_stay(self) -> None:
        self.fill("a/folder", {"one": "1", "below/two": "2"})
        self.fill("a/folder-2", {"three": "3"})
        self.fill("a/file", "4")

        for name in ("a/folder", "a/file", "a/folder", "a/nothing"):
            self.store(name).remove()

        assert not self.store("a/folder").exists()
        assert not self.store("a/file").exists()
        assert self.stored("a/folder-2") == {"three": "3"}

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

    def test_the_files_of_a_folder_are_listed(self) -> None:
        tree = {"b": "22", "a/z": "1", "a.x": "333", "a/.hidden": "", "sp ace": "4", "über+%": "5"}
        self.fill("folder", tree)

        found = list(self.store("folder").entries())

        assert found == [StoreEntry(name, len(text)) for name, text in sorted(tree.items())]

    def test_some_files_are_listed(self) -> None:
        class Some(EntryFilter):
            def chooses(self, name: str) -> bool:
                return name.endswith("a")

            def enters(self, folder: str) -> bool:
                return folder != "left"

        self.fill("folder", {"a": "1", "b": "2", "d/a": "3", "d/b": "4", "d/e/a": "5"})
        self.fill("file", "6")

        names = [entry.name for entry in self.store("folder").entries(Some())]

        assert names == ["a", "d/a", "d/e/a"]
        assert list(self.store("file").entries(Some())) == []

    def test_a_file_is_listed_by_its_own_name(self) -> None:
        self.fill("file", "text")

        assert list(self.store("file").entries()) == [StoreEntry("file", 4)]

    def test_what_is_not_there_cannot_be_listed(self) -> None:
        with pytest.raises(NotFoundError):
            self.store("nothing").entries()

    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [
            (0, None, "0123456789"),
            (3, None, "3456789"),
            (3, 4, "3456"),
            (8, 100, "89"),
            (0, 0, ""),
            (10, None, ""),
            (50, 5, ""),
        ],
    )
    def test_bytes_of_a_file_are_read(
        self, offset: int, length: int | None, expected: str
    ) -> None:
        self.fill("folder", {"deep/a": "0123456789"})

        inside = self.store("folder").read("deep/a", offset=offset, length=length)
        itself = self.store("folder/deep/a").read(offset=offset, length=length)

        assert inside == itself == expected.encode()

    def test_an_empty_file_is_read(self) -> None:
        self.fill("folder", {"a": ""})

        assert self.store("folder").read("a") == b""
        assert self.store("folder").read("a", length=8) == b""

    def test_what_is_listed_can_be_read(self) -> None:
        self.fill("folder", {"über+%": "1"})
        self.fill("file", "2")

        read = [
            self.store(name).read(entry.name)
            for name in ("folder", "file")
            for entry in self.store(name).entries()
        ]

        assert read == [b"1", b"2"]

    @pytest.mark.parametrize("name", ["nothing", "", "deep", "deep/a/b"])
    def test_what_is_no_file_cannot_be_read(self, name: str) -> None:
        self.fill("folder", {"deep/a": "1"})

        with pytest.raises(NotFoundError):
            self.store("folder").read(name)

    @pytest.mark.parametrize(
        "name", ["..", "../file", "/file", "deep/../../file", "./a", "deep//a", "a\0", "deep/"]
    )
    def test_a_name_that_climbs_is_refused(self, name: str) -> None:
        self.fill("file", "secret")
        self.fill("folder", {"deep/a": "1", "a": "2"})

        with pytest.raises(BadInputError) as raised:
            self.store("folder").read(name)

        assert raised.value.code == "PathClimbs"

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
            (
                {"d/a": "old", "d/own": "old", "d/e/own": "old"},
                {"d/a": "new", "d/e/b": "new"},
                {"d/a": "new", "d/own": "old", "d/e/b": "new", "d/e/own": "old"},
            ),
        ],
        ids=["same file", "other file", "same folder"],
    )
    def test_only_files_of_the_same_name_are_replaced(
        self, tmp_path: Path, before: Tree, published: Tree, after: Tree
    ) -> None:
        self.fill("out", before)

        self.store("out").check_writable(published)
        self.store("out").publish(write_tree(tmp_path / "source", published))

        assert self.stored("out") == after
        assert self.everything() == {f"out/{name}" for name in after}

    @pytest.mark.parametrize(
        ("there", "published", "named"),
        [
            ("x/own", "x", "out/x is a folder, where a file is published"),
            ("d/x/own", "d/x", "out/d/x is a folder, where a file is published"),
            ("x", "x/inside", "out/x is a"),
            ("d/x", "d/x/far/inside", "where a folder is published"),
        ],
    )
    def test_what_stands_in_the_way_is_refused_before_anything_is_replaced(
        self, tmp_path: Path, there: str, published: str, named: str
    ) -> None:
        before = {"a": "old", there: "old"}
        self.fill("out", before)
        source = write_tree(tmp_path / "source", {"a": "new", published: "new"})
        target = self.store("out")

        for act in (
            lambda: target.check_writable(["a", published]),
            lambda: target.publish(source),
        ):
            with pytest.raises(BadInputError, match=named) as raised:
                act()
            assert (raised.value.code, bool(raised.value.hint)) == ("NamesClash", True)
        assert self.stored("out") == before
        assert self.everything() == {f"out/{name}" for name in before}

    def test_versions_are_of_files_that_are_there(self) -> None:
        self.fill("out", {"a": "1", "d/b": "22", "d/c": "3", "other": "4"})
        names = ["a", "d", "d/b", "d/nothing", "a/below", "none"]
        target = self.store("out")

        found = target.versions(names)

        assert {name: version.size for name, version in found.items()} == {"a": 1, "d/b": 2}
        assert target.versions(names) == found
        assert found["a"].is_older_than(found["a"])
        self.fill("out", {"a": "5"})
        assert target.versions(["d/b"]) == {"d/b": found["d/b"]}
        assert target.versions(["a"]) != {"a": found["a"]}
        assert self.store("new").versions(["a"]) == {}

    @pytest.mark.parametrize("found_too", [False, True], ids=["not found", "written since"])
    @pytest.mark.parametrize("way", ["published", "last", "stale"])
    def test_only_what_was_found_is_replaced(
        self, tmp_path: Path, way: str, *, found_too: bool
    ) -> None:
        self.fill("out", {"a": "old", "d/mine": "found", "z": "own"})
        source = write_tree(tmp_path / "source", {"a": "new", "list": "new"})
        if way != "stale":
            write_tree(source, {"d/mine": "new"})
        target = self.store("out")
        found = target.versions(["a", *["d/mine"] * found_too])
        self.fill("out", {"d/mine": "mine"})
        before = self.stored("out")

        with pytest.raises(FilesExistError) as raised:
            target.publish(
                source, last="d/mine" if way == "last" else "list",
                stale=["d/mine"] * (way == "stale"), replaceable=found,
            )  # fmt: skip

        assert raised.value.names == ["d/mine"]
        assert (raised.value.code, bool(raised.value.hint)) == ("FilesExist", True)
        assert self.stored("out") == before

    def test_what_was_found_is_replaced_or_removed_also_if_it_is_gone(
        self, tmp_path: Path
    ) -> None:
        self.fill("out", {"a": "old", "d/b": "old", "gone": "old", "list": "old", "z": "own"})
        self.fill("out/d/e", {"stale": "old"})
        target = self.store("out")
        found = target.versions(["a", "d/b", "gone", "list", "d/e/stale"])
        self.store("out/gone").remove()
        published = {"a": "new", "d/b": "new", "d/f/c": "new", "gone": "new", "list": "new"}
        source = write_tree(tmp_path / "source", published)

        target.publish(source, last="list", stale=["d/e/stale"], replaceable=found)

        assert self.stored("out") == {**published, "z": "own"}
        assert self.everything() == {f"out/{name}" for name in (*published, "z")}

    def test_stale_files_go_and_nothing_else(self, tmp_path: Path) -> None:
        stale = ["a", "d/b", "gone/deep/c", "nothing", "no/thing", "d/e"]
        self.fill("out", {"a": "", "d/b": "", "d/own": "", "gone/deep/c": "", "d/e/own": ""})
        source = write_tree(tmp_path / "source", {"d/new": "1", "list": "2"})

        self.store("out").publish(source, last="list", stale=stale)

        assert self.stored("out") == {"d/own": "", "d/e/own": "", "d/new": "1", "list": "2"}
        assert not self.store("out/gone").exists()

    @pytest.mark.parametrize("name", ["../own", "/own", "d/../../own", ""])
    def test_a_stale_name_that_climbs_is_refused(self, tmp_path: Path, name: str) -> None:
        self.fill("own", "1")
        self.fill("out", {"a": "old"})

        with pytest.raises(BadInputError) as raised:
            self.store("out").publish(write_tree(tmp_path / "source", {"a": "new"}), stale=[name])

        assert raised.value.code == "PathClimbs"
        assert self.stored("out") == {"a": "old"}
        assert self.store("own").exists()

    @pytest.mark.parametrize(
        ("before", "published", "after"),
        [
            ({"d/gone": "old", "e/kept": "old"}, {"d/a": "new"}, {"d/a": "new", "e/kept": "old"}),
            ({"x/inside": "old"}, {"x": "new"}, {"x": "new"}),
            ({"x": "old"}, {"x/inside": "new"}, {"x/inside": "new"}),
        ],
        ids=["same folder", "file over folder", "folder over file"],
    )
    def test_entries_are_replaced_whole_where_that_is_wanted(
        self, tmp_path: Path, before: Tree, published: Tree, after: Tree
    ) -> None:
        self.fill("out", before)
        source = write_tree(tmp_path / "source", published)

        self.store("out").publish(source, whole_entries=True)

        assert self.stored("out") == after
        assert self.everything() == {f"out/{name}" for name in after}

    @pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
    def test_a_file_is_no_place_to_publish(self, tmp_path: Path, place: str) -> None:
        self.fill("file", "text")
        source = write_tree(tmp_path / "source", {"a": "1"})
        target = self.store(place)

        for act in (target.check_writable, lambda: target.publish(source)):
            with pytest.raises(BadInputError) as raised:
                act()
            assert raised.value.code == "NotADirectory"
            assert raised.value.hint
        assert self.everything() == {"file"}

    @pytest.mark.parametrize("kind", ["file", "folder", "link"])
    def test_a_destination_that_is_there_is_refused(self, tmp_path: Path, kind: str) -> None:
        self.fill("folder", {"a": "new"})
        there: Tree = {"file": {"copy": "old"}, "folder": {"copy/a": "old"},
                       "link": {"copy": "-> nothing"}}[kind]  # fmt: skip
        write_tree(tmp_path / "here", there)

        with pytest.raises(ConflictError) as raised:
            self.store("folder").fetch(tmp_path / "here" / "copy")

        assert (raised.value.code, bool(raised.value.hint)) == ("DestinationExists", True)
        assert read_tree(tmp_path / "here") == there

    @pytest.mark.parametrize("name", ["folder", "folder/a"])
    def test_a_destination_below_a_file_is_refused(self, tmp_path: Path, name: str) -> None:
        self.fill("folder", {"a": "new"})
        write_tree(tmp_path / "here", {"file": "old"})

        for below in ("copy", "far/copy"):
            with pytest.raises(BadInputError) as raised:
                self.store(name).fetch(tmp_path / "here" / "file" / below)
            assert (raised.value.code, bool(raised.value.hint)) == ("NotADirectory", True)
        assert read_tree(tmp_path / "here") == {"file": "old"}

    def test_transfers_that_have_not_ended_are_not_published(self, tmp_path: Path) -> None:
        hidden = {".x.0123456789abcdef.partial/data": "half", ".y.copy.partial/new": "half"}

        self.store("out").publish(write_tree(tmp_path / "source", {"a": "1", **hidden}))

        assert self.stored("out") == {"a": "1"}

    def test_looking_changes_nothing(self) -> None:
        self.store("new").check_writable()
        self.store("new").exists()

        assert self.everything() == set()
