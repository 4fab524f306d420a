from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import DiskFullError, NotFoundError, StackError
from infra.mlflow import MlflowException, transport
from registry.models import model_artifacts
from registry.models.model_artifacts import Artifacts
from tests.registry.trained import MakeRun

pytestmark = pytest.mark.usefixtures("mlflow")

CONTENT = bytes(range(200))


@pytest.fixture
def files(run: MakeRun) -> Artifacts:
    def make(folder: Path, _: str) -> None:
        (folder / "in side").mkdir(parents=True)
        (folder / "in side" / "a b +é.bin").write_bytes(CONTENT)
        (folder / "empty").write_bytes(b"")

    return Artifacts(run(make).source)


ODD = "in side/a b +é.bin"


def test_files_and_pieces_of_them(files: Artifacts) -> None:
    assert [(entry.name, entry.size) for entry in files.entries()] == [("empty", 0), (ODD, 200)]
    assert files.read(ODD) == CONTENT
    assert files.read(ODD, offset=10, length=5) == CONTENT[10:15]
    assert files.read(ODD, offset=190, length=50) == CONTENT[190:]
    assert files.read(ODD, offset=200, length=5) == b""
    assert files.read("empty") == b""
    with pytest.raises(NotFoundError):
        files.read("nothing")


def test_a_server_that_knows_no_ranges(files: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = transport.send

    def without_range(*args: Any, headers: Any = None, **kwargs: Any) -> Any:
        return ask(*args, **kwargs)

    monkeypatch.setattr(transport, "send", without_range)
    monkeypatch.setattr(model_artifacts, "_CHUNK", 7)

    assert files.read(ODD, offset=20, length=50) == CONTENT[20:70]
    assert files.read(ODD, offset=190) == CONTENT[190:]


def test_a_server_that_does_not_answer(files: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise MlflowException("reset")

    monkeypatch.setattr(transport, "send", broken)
    with pytest.raises(StackError) as raised:
        files.read(ODD)

    assert raised.value.code == "ArtifactUnreadable"


def test_deleted_twice_they_are_gone(files: Artifacts) -> None:
    for _ in range(2):
        model_artifacts.delete(files.uri)

    with pytest.raises(NotFoundError):
        files.entries()


def test_a_full_disk_is_told_before_anything_is_written(
    files: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(model_artifacts.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFullError):
        files.fetch(tmp_path / "to" / "fetched")

    assert list((tmp_path / "to").iterdir()) == []
