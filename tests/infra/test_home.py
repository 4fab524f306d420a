from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from infra import home as homes
from infra.errors import StackError
from infra.home import Home

_FOLDERS = ("artifacts", "runs", "overlays", "logs", "prefect", "sockets")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_make_makes_folders_for_their_owner_only(tmp_path: Path, temporary: Path) -> None:
    home = Home(tmp_path / "new" / "home")
    home.make()
    home.make()

    for name in _FOLDERS:
        assert stat.S_IMODE(getattr(home, name).stat().st_mode) == 0o700
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_open_socket_folders_are_closed(tmp_path: Path, temporary: Path) -> None:
    home = Home(tmp_path / "home")
    home.sockets.mkdir(parents=True)
    home.sockets.chmod(0o777)

    home.make()

    assert stat.S_IMODE(home.sockets.stat().st_mode) == 0o700


def test_a_short_home_holds_its_sockets() -> None:
    assert Home(Path("/h")).sockets == Path("/h/sockets")


def test_the_sockets_of_a_long_home_have_a_short_path() -> None:
    long = Home(Path("/h") / ("x" * 200))
    other = Home(Path("/h") / ("y" * 200))

    assert len(os.fsencode(long.sockets / "control.sock")) < 100
    assert long.sockets == Home(long.root).sockets
    assert long.sockets != other.sockets


def test_length_is_counted_in_bytes() -> None:
    home = Home(Path("/h") / ("길" * 24))

    assert home.sockets.parent == Path(tempfile.gettempdir())


def test_a_socket_folder_that_is_a_link_is_refused(tmp_path: Path, temporary: Path) -> None:
    home = Home(tmp_path / "home")
    home.sockets.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    home.sockets.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StackError, match="belongs to another user"):
        home.make()


def test_a_socket_folder_of_another_user_is_refused(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.make()
    monkeypatch.setattr(Home, "sockets", home.sockets)
    monkeypatch.setattr(os, "getuid", lambda: home.sockets.stat().st_uid + 1)

    with pytest.raises(StackError, match="belongs to another user"):
        home.make()


def test_a_home_that_cannot_be_made_is_one_clear_error(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StackError) as raised:
        Home(tmp_path / "file" / "home").make()

    assert "cannot be used: Not a directory" in raised.value.message
    assert "MODELYARD_HOME" in raised.value.hint


def test_the_current_home_is_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", "/some/where")

    assert homes.current() == Home(Path("/some/where"))


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    homes.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        homes.write_json(path, {"a": object()})

    homes.write_json(path, {"b": 2})

    assert path.read_text().split() == ["{", '"b":', "2", "}"]
    assert list(tmp_path.iterdir()) == [path]
