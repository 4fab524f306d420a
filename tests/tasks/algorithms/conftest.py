"""Runs provided algorithms the way that a training does, and loads their modules."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from infra.home import Home
from infra.settings import Settings
from tasks import provided
from tasks.run_directory import RunDirectory
from tasks.training import training_request, training_steps
from tasks.training.training_request import Algorithm, Dataset, Training

_OURS = ("EM_", "MLFLOW_", "MODELYARD_", "PYTHONDONTWRITEBYTECODE")

Load = Callable[..., ModuleType]


@dataclass
class Done:
    """A script that ended."""

    code: int
    lines: list[str]
    error: str

    def reports(self, first: str) -> list[dict[str, float]]:
        """The ``key=value`` lines that begin with ``first``."""
        return [
            {key: float(value) for key, value in re.findall(r"(\w+)=(\S+)", line)}
            for line in self.lines
            if line.startswith(f"{first}=")
        ]


class Trainer:
    """One run of a provided algorithm, attempt after attempt."""

    def __init__(
        self,
        root: Path,
        algorithm: str,
        datasets: Mapping[str, Path],
        hyperparameters: Mapping[str, Any],
    ) -> None:
        self._home = Home(root)
        self._home.make()
        self.run_dir = RunDirectory(self._home.runs / "run")
        self._request = training_request.resolved(
            Training(
                algorithm=Algorithm(provided=algorithm),
                datasets=[Dataset(name=name, uri=str(uri)) for name, uri in datasets.items()],
                hyperparameters=dict(hyperparameters),
            )
        )

    def start(
        self, *, retried: bool = False, launcher: Sequence[str] = (), **env: str
    ) -> subprocess.Popen[str]:
        """Start the script, under ``launcher`` if one is given."""
        prepared = training_steps.prepare(
            self._request, self.run_dir, self._home, Settings(home=self._home.root),
            retried=retried, log=print,
        )  # fmt: skip
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(_OURS)
        }
        python, *script = prepared.command
        return subprocess.Popen(
            [python, *launcher, *script],
            env={**inherited, "OMP_NUM_THREADS": "1", **prepared.env, **env},
            cwd=self.run_dir.source, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, **how: Any) -> Done:
        """The script, run to its end."""
        process = self.start(**how)
        out, error = process.communicate()
        return Done(process.returncode, out.splitlines(), error)

    def killed_after(self, line: str) -> None:
        """The script, killed when it has printed a line that begins so."""
        with self.start() as process:
            assert process.stdout is not None
            next(one for one in process.stdout if one.startswith(line))
            process.kill()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On data this small, more threads only wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a module of an algorithm; both have some of the same name, so none stays."""

    def imported(algorithm: str, name: str) -> ModuleType:
        path = str(provided.load(algorithm).path)
        if path not in sys.path:
            monkeypatch.syspath_prepend(path)
        return importlib.import_module(name)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the folder is what runs copy
    before = set(sys.modules)
    yield imported
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if "/tasks/algorithms/" in file and "/tests/" not in file:
            del sys.modules[name]


@dataclass
class Board:
    """An MLflow run whose artifacts are files."""

    env: dict[str, str]
    artifacts: Path


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Board]:
    """Makes MLflow runs."""
    root = tmp_path_factory.mktemp("mlflow") / "new"  # made by MLflow, with its experiment 0
    env = {"MLFLOW_TRACKING_URI": root.as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}

    def made() -> Board:
        from mlflow import MlflowClient

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
            run = MlflowClient(root.as_uri()).create_run("0").info
        return Board({**env, "MLFLOW_RUN_ID": run.run_id}, root / "0" / run.run_id / "artifacts")

    return made
