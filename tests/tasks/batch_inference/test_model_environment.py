"""What is installed for a model."""

from __future__ import annotations

import contextlib
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.workloads.environment_spec import EnvironmentSpec
from tasks.batch_inference import model_environment

MODEL: Any = SimpleNamespace(uri="models:/m/1", outside=True, source_uri="nowhere")


class RecordingCache:
    """A cache of environments that makes none."""

    def __init__(self) -> None:
        self.specs: list[EnvironmentSpec] = []

    @contextlib.contextmanager
    def using(self, spec: EnvironmentSpec, *_: object) -> Iterator[Any]:
        self.specs.append(spec)
        with Path("/dev/null").open() as lock:
            yield SimpleNamespace(python="python", lock=lock)


def _installed(folder: Path) -> tuple[str, tuple[str, ...], str]:
    """The interpreter, and the requirements and the file that are installed for it."""
    cache: Any = RecordingCache()
    with model_environment.using(MODEL, folder, cache, print, lambda: False) as (python, _):
        pass
    if not cache.specs:
        return python, (), ""
    ((install,),) = [spec.installs for spec in cache.specs]
    return python, install.requirements, install.file.read_text() if install.file else ""


def _handler(folder: Path) -> None:
    (folder / "handler.py").write_text("")


def _handler_with_requirements(folder: Path) -> None:
    _handler(folder)
    (folder / "requirements.txt").write_text("cowsay")


def _archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "m.mar", "w") as archive:
        archive.writestr("needs.txt", "cowsay")
        model = {"model": {"requirementsFile": "needs.txt"}}
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(model))


@pytest.mark.parametrize(
    ("write", "file"),
    [(_handler, ""), (_handler_with_requirements, "cowsay"), (_archive, "cowsay")],
)
def test_a_handler_has_torchserve_beside_its_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], file: str
) -> None:
    monkeypatch.setattr(model_environment, "_is_installed", lambda name: name != "torchserve")
    (tmp_path / "model").mkdir()
    write(tmp_path / "model")

    assert _installed(tmp_path / "model") == ("python", ("torchserve",), file)


def test_what_modelyard_has_needs_no_environment(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"\x80")

    assert _installed(tmp_path) == (sys.executable, (), "")


@pytest.mark.parametrize("has_stock", [True, False])
def test_folders_that_are_not_registered_have_the_first_requirements(
    tmp_path: Path, has_stock: bool
) -> None:
    for name in ("script", "model", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "model" / "requirements.txt").write_text("cowsay")
    cache: Any = RecordingCache()

    def python_of(*names: str) -> str:
        folders = [tmp_path / name for name in names]
        found = model_environment.using_folders(
            folders, cache, print, lambda: False, has_stock=has_stock
        )
        with found as (python, _):
            return python

    assert python_of("script", "other") == sys.executable
    assert python_of("script", "model") == "python"
    assert [spec.installs[0].file for spec in cache.specs] == [
        tmp_path / "model" / "requirements.txt"
    ]
