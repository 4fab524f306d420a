from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, DiskFullError
from infra.storage import Store, is_disk_full, store
from tests.infra.storage.contract import (
    StoreContract,
    Tree,
    as_nobody,
    read_tree,
    write_tree,
)


class TestFileStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _root(self, tmp_path: Path) -> None:
        self.root = tmp_path / "stores"
        self.root.mkdir()

    def store(self, name: str) -> Store:
        return store((self.root / name).as_uri())

    def fill(self, name: str, content: Tree | str) -> None:
        if isinstance(content, str):
            write_tree(self.root, {name: content})
        else:
            write_tree(self.root / name, content)

    def stored(self, name: str) -> Tree:
        return read_tree(self.root / name)

    def everything(self) -> set[str]:
        return set(read_tree(self.root))


def _store(path: Path) -> Store:
    return store(str(path))


@pytest.mark.parametrize(
    "tree",
    [
        {"a": "1", "link": "-> a"},
        {"deep/a": "1", "up/link": "-> ../deep/a"},
        {"deep/a": "1", "link": "-> deep"},
        {"dangling": "-> nothing"},
    ],
)
def test_links_that_stay_inside_are_kept(tmp_path: Path, tree: Tree) -> None:
    _store(write_tree(tmp_path / "source", tree)).fetch(tmp_path / "copy")

    assert read_tree(tmp_path / "copy") == tree


_ABSOLUTE = {
    "model/weights": "1",
    "latest": "-> {}/model/weights",
    "model/up": "-> {}/model",
    "roundabout": "-> ../source/model/weights",
    "chain": "-> latest",
    "missing": "-> {}/model/missing",
}
_RELATIVE = {
    "model/weights": "1",
    "latest": "-> model/weights",
    "model/up": "-> .",
    "roundabout": "-> model/weights",
    "missing": "-> model/missing",
}


@pytest.mark.parametrize("way", ["fetch", "publish", "merge"])
def test_absolute_links_that_stay_inside_lead_to_the_copy(tmp_path: Path, way: str) -> None:
    source = tmp_path / "source"
    write_tree(source, {name: text.format(source) for name, text in _ABSOLUTE.items()})
    copy = tmp_path / "copy"

    if way == "fetch":
        _store(source).fetch(copy)
    else:
        write_tree(copy, {"kept": "1"}) if way == "merge" else None
        _store(copy).publish(source)

    shutil.rmtree(source)
    found = read_tree(copy)
    assert found.pop("kept", "1") == "1"
    assert found.pop("chain") in {"-> latest", "-> model/weights"}
    assert found == _RELATIVE
    (copy / "latest").write_text("2")
    assert (copy / "model" / "weights").read_text() == "2"


def test_a_link_to_itself_stays_one(tmp_path: Path) -> None:
    _store(write_tree(tmp_path / "source", {"a": "-> a"})).fetch(tmp_path / "copy")

    assert read_tree(tmp_path / "copy") == {"a": "-> a"}


def test_a_file_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    target = write_tree(tmp_path, {"own": "mine", "out/d/a": "-> ../../own"}) / "out"

    _store(target).publish(write_tree(tmp_path / "source", {"d/a": "new"}))

    assert read_tree(target) == {"d/a": "new"}
    assert (tmp_path / "own").read_text() == "mine"


@pytest.mark.parametrize("link", ["-> ../elsewhere", "-> there"], ids=["outside", "inside"])
def test_nothing_is_published_through_a_link_to_a_folder(tmp_path: Path, link: str) -> None:
    before = {"elsewhere/x": "own", "out/there/x": "own", "out/a": "old", "out/d": link}
    target = _store(write_tree(tmp_path, before) / "out")
    source = write_tree(tmp_path / "source", {"a": "new", "d/x": "new"})

    for act in (lambda: target.check_writable(["d/x"]), lambda: target.publish(source)):
        with pytest.raises(BadInputError, match="out/d is a link, where a folder") as raised:
            act()
        assert raised.value.code == "NamesClash"
    assert read_tree(tmp_path) == {**before, "source/a": "new", "source/d/x": "new"}


def test_a_link_to_a_folder_is_not_published_over_a_folder(tmp_path: Path) -> None:
    target = write_tree(tmp_path / "out", {"link/own": "mine"})

    with pytest.raises(BadInputError, match="link is a folder, where a file"):
        _store(target).publish(write_tree(tmp_path / "source", {"d/a": "1", "link": "-> d"}))

    assert read_tree(target) == {"link/own": "mine"}


@pytest.mark.parametrize("before", [{}, {"old": "1"}])
def test_links_that_point_outside_are_not_published(tmp_path: Path, before: Tree) -> None:
    write_tree(tmp_path / "out", before) if before else None
    source = write_tree(tmp_path / "source", {"a": "1", "link": "-> /etc/hostname"})

    with pytest.raises(BadInputError) as raised:
        _store(tmp_path / "out").publish(source)

    assert raised.value.code == "LinkPointsOutside"
    assert (tmp_path / "out").exists() is bool(before)


@pytest.mark.parametrize(
    "tree",
    [
        {"link": "-> ../secret"},
        {"link": "-> /etc/hostname"},
        {"deep/link": "-> ../../secret"},
        {"link": "-> .."},
        {"one": "-> two", "two": "-> ../secret"},
        {"link": "-> ../missing"},
        {"link": "-> ../source-sibling/x"},
    ],
)
def test_links_that_point_outside_are_refused(tmp_path: Path, tree: Tree) -> None:
    write_tree(tmp_path, {"secret": "s", "source-sibling/x": "s"})
    source = write_tree(tmp_path / "source", tree)
    before = set(tmp_path.iterdir())

    with pytest.raises(BadInputError) as raised:
        _store(source).fetch(tmp_path / "copy")

    assert raised.value.code == "LinkPointsOutside"
    assert set(tmp_path.iterdir()) == before


def test_links_are_listed_and_read_as_what_they_point_to(tmp_path: Path) -> None:
    tree = {"deep/a": "1", "file": "-> deep/a", "folder": "-> deep", "dangling": "-> nothing"}
    source = _store(write_tree(tmp_path / "source", tree))

    assert [entry.name for entry in source.entries()] == ["deep/a", "file", "folder/a"]
    assert source.read("file") == source.read("folder/a") == b"1"


@pytest.mark.parametrize("name", ["link", "folder/file"])
def test_links_that_point_outside_are_not_read(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, {"secret/file": "s"})
    source = _store(
        write_tree(tmp_path / "source", {"link": "-> ../secret/file", "folder": "-> ../secret"})
    )

    for look in (lambda: source.read(name), source.entries):
        with pytest.raises(BadInputError) as raised:
            look()
        assert raised.value.code == "LinkPointsOutside"


def test_links_that_loop_are_not_listed(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a/b": "1", "a/up": "-> .."})

    with pytest.raises(BadInputError) as raised:
        _store(source).entries()

    assert raised.value.code == "LinkLoops"


def test_a_copy_tells_its_size(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a": "123", "deep/b": "45"})
    told: list[tuple[int, int]] = []

    _store(source).fetch(tmp_path / "copy", lambda *done: told.append(done))
    _store(source / "a").fetch(tmp_path / "file", lambda *done: told.append(done))
    _store(tmp_path / "out").publish(source, lambda *done: told.append(done))

    assert told == [(5, 5), (3, 3), (5, 5)]


def test_a_folder_given_by_a_link_is_fetched(tmp_path: Path) -> None:
    write_tree(tmp_path, {"real/a": "1", "source": "-> real"})

    _store(tmp_path / "source").fetch(tmp_path / "copy")

    assert read_tree(tmp_path / "copy") == {"a": "1"}
    assert not (tmp_path / "copy").is_symlink()


def test_a_script_stays_executable(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"run.sh": "exit"})
    (source / "run.sh").chmod(0o755)

    _store(source).fetch(tmp_path / "copy")

    assert os.access(tmp_path / "copy" / "run.sh", os.X_OK)


def _full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _full_after_some(source: Path, target: Path, **_: Any) -> None:
    target.mkdir()
    (target / "some").write_text("half")
    raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])


@pytest.mark.parametrize(
    "copy",
    [lambda a, b: _store(a).fetch(b), lambda a, b: _store(b).publish(a)],
    ids=["fetch", "publish"],
)
def test_a_full_disk_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: Callable[[Path, Path], None]
) -> None:
    source = write_tree(tmp_path / "source", {"a": "1"})
    monkeypatch.setattr(shutil, "copytree", _full_after_some)

    with pytest.raises(DiskFullError):
        copy(source, tmp_path / "target")

    assert set(tmp_path.iterdir()) == {source}


def test_a_file_that_does_not_fit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, {"source": "1"})
    monkeypatch.setattr(shutil, "copy2", _full)

    with pytest.raises(DiskFullError):
        _store(tmp_path / "source").fetch(tmp_path / "target")

    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_publishing_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write_tree(tmp_path / "target", {"a": "old"})
    source = write_tree(tmp_path / "source", {"a": "new"})
    monkeypatch.setattr(shutil, "copytree", _full_after_some)

    with pytest.raises(DiskFullError):
        _store(target).publish(source)

    assert read_tree(tmp_path) == {"target/a": "old", "source/a": "new"}


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EACCES, "closed"), False),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device")]), True),
        (shutil.Error([("a", "b", "[Errno 13] Permission denied")]), False),
        (shutil.Error("same file"), False),
        (ValueError("full"), False),
    ],
)
def test_a_full_disk_is_recognised(error: Exception, full: bool) -> None:
    assert is_disk_full(error) is full


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {"file": "text"})
    (tmp_path / "file").chmod(0o777)

    with pytest.raises(BadInputError):
        _store(tmp_path / "file" / "out").check_writable()


@pytest.fixture
def closed(open_to_all: Path) -> Iterator[Path]:
    """A folder that may not be written; ``open`` in it may, and ``source`` may be read."""
    folder = open_to_all / "closed"
    write_tree(folder / "source", {"a": "1", "d/b": "2"})
    write_tree(folder / "open", {})
    (folder / "open").chmod(0o777)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.fixture
def _ordinary_user(closed: Path) -> Iterator[None]:
    with as_nobody():
        yield


@pytest.mark.usefixtures("_ordinary_user")
def test_a_closed_folder_is_refused(closed: Path) -> None:
    with pytest.raises(BadInputError) as raised:
        _store(closed / "new" / "out").check_writable()

    assert raised.value.code == "NotWritable"


@pytest.mark.usefixtures("_ordinary_user")
def test_an_open_folder_in_a_closed_one_is_published_to(closed: Path) -> None:
    target = _store(closed / "open")

    target.check_writable()
    target.publish(closed / "source")

    assert read_tree(closed / "open") == {"a": "1", "d/b": "2"}


def test_a_closed_folder_below_is_refused_before_anything_is_replaced(
    open_to_all: Path,
) -> None:
    source = write_tree(open_to_all / "source", {"a": "new", "d/b": "new"})
    out = write_tree(open_to_all / "out", {"a": "old", "d/own": "old"})
    out.chmod(0o777)
    (out / "d").chmod(0o555)

    with as_nobody():
        for act in (
            lambda: _store(out).check_writable(["d/b"]),
            lambda: _store(out).publish(source),
        ):
            with pytest.raises(BadInputError, match="out/d may not be written") as raised:
                act()
            assert raised.value.code == "NotWritable"

    assert read_tree(out) == {"a": "old", "d/own": "old"}


@pytest.mark.usefixtures("_ordinary_user")
def test_a_closed_folder_is_not_published_to(closed: Path, open_to_all: Path) -> None:
    for target in (closed, closed / "new"):
        with pytest.raises(BadInputError) as raised:
            _store(target).publish(closed / "source")
        assert (raised.value.code, bool(raised.value.hint)) == ("NotWritable", True)
    assert {path.name for path in open_to_all.rglob("*")} == {
        "closed",
        "source",
        "open",
        "a",
        "d",
        "b",
    }


@pytest.mark.parametrize("name", ["", "a"], ids=["folder", "file"])
def test_what_may_not_be_read_is_named(open_to_all: Path, name: str) -> None:
    folder = write_tree(open_to_all / "closed", {"a": "1"})
    (folder / name).chmod(0)
    (open_to_all / "here").mkdir()
    (open_to_all / "here").chmod(0o777)
    found, target = _store(folder), _store(open_to_all / "here" / "out")
    acts: list[Callable[[], object]] = [
        lambda: found.read("a"),
        lambda: found.fetch(open_to_all / "here" / "copy"),
        lambda: target.publish(folder),
    ]
    if not name:
        acts.append(found.entries)

    for act in acts:
        with as_nobody(), pytest.raises(BadInputError) as raised:
            act()
        assert (raised.value.code, bool(raised.value.hint)) == ("NotReadable", True)
    assert list((open_to_all / "here").iterdir()) == []


def test_transfers_that_have_not_ended_are_neither_listed_nor_fetched(tmp_path: Path) -> None:
    source = write_tree(
        tmp_path / "source",
        {"a": "1", ".x.0123456789abcdef.partial/link": "-> /etc", ".y.copy.partial/new": "half",
         ".z.partial": "a file of somebody"},
    )  # fmt: skip

    assert [entry.name for entry in _store(source).entries()] == [".z.partial", "a"]
    _store(source).fetch(tmp_path / "copy")
    assert read_tree(tmp_path / "copy") == {"a": "1", ".z.partial": "a file of somebody"}


def test_a_link_to_a_folder_is_published_into(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a": "new", "d/x": "new", "list": "new"})
    place = write_tree(tmp_path / "place", {"d/own": "old", "list": "old"})
    (tmp_path / "link").symlink_to("place")

    _store(tmp_path / "link").publish(source, last="list")

    assert read_tree(place) == {**read_tree(source), "d/own": "old"}
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("leads", ["nowhere", "link"])
@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_link_that_leads_nowhere_is_no_place_to_publish(
    tmp_path: Path, leads: str, below: str
) -> None:
    (tmp_path / "link").symlink_to(leads)
    target = _store(tmp_path / "link" / below)

    for act in (
        target.check_writable,
        lambda: target.publish(write_tree(tmp_path / "source", {"a": "1"})),
    ):
        with pytest.raises(BadInputError) as raised:
            act()
        assert raised.value.code == "NotADirectory"
    assert (tmp_path / "link").is_symlink()
