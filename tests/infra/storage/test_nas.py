from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.errors import BadInputError, ModelyardError, NotFoundError
from infra.storage import Store, store
from tests.infra.storage.contract import StoreContract, Tree, read_tree, write_tree


class TestNas(StoreContract):
    @pytest.fixture(autouse=True)
    def _mount(self, mount: Path) -> None:
        self.root = mount / "inner"
        self.root.mkdir()

    def store(self, name: str) -> Store:
        return store(f"nas://data-1:/inner/{name}")

    def fill(self, name: str, content: Tree | str) -> None:
        if isinstance(content, str):
            write_tree(self.root, {name: content})
        else:
            write_tree(self.root / name, content)

    def stored(self, name: str) -> Tree:
        return read_tree(self.root / name)

    def everything(self) -> set[str]:
        return set(read_tree(self.root))


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a mounted one, with something secret beside it."""
    write_tree(tmp_path, {"secret/file": "s"})
    folder = tmp_path / "mount"
    folder.mkdir()
    monkeypatch.setenv("MODELYARD_NAS", json.dumps({"data-1": str(folder), "gone": "/not/there"}))
    return folder


@pytest.mark.parametrize("path", ["", "/", "/a", "/a/"])
def test_a_path_is_below_the_mount(mount: Path, path: str) -> None:
    write_tree(mount, {"a/b": "1"})

    assert store(f"nas://data-1:{path}").in_place() == mount / path.strip("/")


def test_names_are_taken_literally(mount: Path) -> None:
    write_tree(mount, {"%20?#": "1"})

    assert store("nas://data-1:/%20?#").read() == b"1"


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("nas://data-1/path", "NasUriWrong"),
        ("nas://data-1:path", "NasUriWrong"),
        ("nas://:/path", "NasUriWrong"),
        ("nas://", "NasUriWrong"),
        ("nas://data-2:/path", "NasUnknown"),
        ("nas://gone:/path", "NasNotMounted"),
        ("nas://data-1:/../secret", "PathClimbs"),
        ("nas://data-1:/a/../../secret", "PathClimbs"),
        ("nas://data-1:/link", "LinkPointsOutside"),
        ("nas://data-1:/link/file", "LinkPointsOutside"),
        ("nas://data-1:/up/secret/file", "LinkPointsOutside"),
    ],
)
@pytest.mark.usefixtures("mount")
def test_what_lies_on_no_mount_is_refused(mount: Path, uri: str, code: str) -> None:
    write_tree(mount, {"link": "-> ../secret", "up": "-> .."})

    with pytest.raises(ModelyardError) as raised:
        store(uri)

    assert raised.value.code == code


@pytest.mark.usefixtures("mount")
def test_the_ids_that_there_are_are_named() -> None:
    with pytest.raises(BadInputError) as raised:
        store("nas://data1:/path")

    assert "data-1" in raised.value.message


def test_links_inside_the_mount_are_followed(mount: Path) -> None:
    write_tree(mount, {"real/a": "1", "link": "-> real"})

    assert store("nas://data-1:/link").read("a") == b"1"


def test_a_link_that_is_made_later_leads_nowhere_either(mount: Path, tmp_path: Path) -> None:
    made = store("nas://data-1:/new")
    (mount / "new").symlink_to(tmp_path / "secret")

    for look in (made.exists, made.in_place, made.entries, made.check_writable):
        with pytest.raises(BadInputError):
            look()
    with pytest.raises(BadInputError):
        made.publish(write_tree(tmp_path / "source", {"a": "1"}))
    assert read_tree(tmp_path / "secret") == {"file": "s"}


def test_a_mount_that_goes_is_not_made_up(mount: Path, tmp_path: Path) -> None:
    made = store("nas://data-1:/out")
    mount.rmdir()

    with pytest.raises(NotFoundError) as raised:
        made.publish(write_tree(tmp_path / "source", {"a": "1"}))

    assert raised.value.code == "NasNotMounted"
    assert not mount.exists()
