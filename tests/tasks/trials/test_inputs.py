"""What all trials read, fetched once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import DiskFullError
from infra.storage.file import FileStore
from tasks.training.training_request import Training
from tasks.trials import inputs


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stores that cannot be read in place; what is fetched from them."""
    fetched: list[str] = []
    really = FileStore.fetch

    def fetch(self: FileStore, destination: Path, progress: Any = None) -> None:
        fetched.append(self.uri)
        really(self, destination, progress)

    monkeypatch.setattr(FileStore, "in_place", lambda _: None)
    monkeypatch.setattr(FileStore, "fetch", fetch)
    for name in ("algorithm", "data", "checkpoints"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "one.csv").write_text("1,2")
    return fetched


def _training(tmp_path: Path) -> Training:
    return Training(
        algorithm={"uri": str(tmp_path / "algorithm"), "entry_point": "file"},
        datasets=[
            {"name": "all", "uri": str(tmp_path / "data")},
            {"name": "one", "uri": str(tmp_path / "one.csv")},
        ],
        checkpoint_input_uri=str(tmp_path / "checkpoints"),
    )


def test_everything_is_fetched_once(far: list[str], tmp_path: Path) -> None:
    root, said = tmp_path / "inputs", list[str]()

    found = inputs.shared(_training(tmp_path), root, said.append)
    again = inputs.shared(_training(tmp_path), root, said.append)

    assert found == again
    assert len(far) == len(said) == 4
    assert (Path(found.algorithm.uri) / "file").read_text() == "algorithm"
    by_name = {one.name: Path(one.uri) for one in found.datasets}
    assert (by_name["all"] / "file").read_text() == "data"
    assert (by_name["one"].name, by_name["one"].read_text()) == ("one.csv", "1,2")
    assert (Path(found.checkpoint_input_uri) / "file").read_text() == "checkpoints"
    assert all(str(root) in str(path) for path in by_name.values())

    inputs.clear(root)
    assert not root.exists()


def test_what_lies_here_is_read_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "one.csv").touch()
    (tmp_path / "checkpoints").mkdir()
    asked = _training(tmp_path)

    assert inputs.shared(asked, tmp_path / "inputs", print) == asked
    assert not (tmp_path / "inputs").exists()


def test_what_was_left_out_stays_so(far: list[str], tmp_path: Path) -> None:
    asked = _training(tmp_path).model_copy(update={"checkpoint_input_uri": ""})

    assert inputs.shared(asked, tmp_path / "inputs", print).checkpoint_input_uri == ""


def test_a_fetch_that_fails_is_begun_again(
    far: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = FileStore.fetch

    def full(*_: Any) -> None:
        raise DiskFullError("full")

    monkeypatch.setattr(FileStore, "fetch", full)
    with pytest.raises(DiskFullError):
        inputs.shared(_training(tmp_path), tmp_path / "inputs", print)
    monkeypatch.setattr(FileStore, "fetch", fetch)

    found = inputs.shared(_training(tmp_path), tmp_path / "inputs", print)
    assert (Path(found.algorithm.uri) / "file").exists()
