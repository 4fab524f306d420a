from __future__ import annotations

import asyncio
import os
import warnings
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker

from infra import local_worker
from infra.home import Home
from infra.local_worker import LocalJobConfiguration, LocalWorker


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without a server: it polls nothing."""

    async def enter(worker: Any) -> Any:
        return worker

    async def leave(*_: Any) -> None:
        return None

    monkeypatch.setattr(BaseWorker, "__aenter__", enter)
    monkeypatch.setattr(BaseWorker, "__aexit__", leave)


def test_the_runners_storage_is_in_the_home(
    home: Home, no_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The shared one may be another user's, whose folders this one may not write to."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "runner_storage").touch()  # not even root makes folders below it
    monkeypatch.setenv("MODELYARD_HOME", str(home.root))
    monkeypatch.setattr(local_worker.Runner, "__aenter__", _enter_runner)
    monkeypatch.setattr("tempfile.tempdir", str(shared))

    async def look() -> list[Path]:
        async with LocalWorker(work_pool_name="cpu"):
            return list(home.runner.iterdir())

    assert len(asyncio.run(look())) == 1
    assert list(home.runner.iterdir()) == []


async def _enter_runner(runner: Any) -> Any:
    runner._tmp_dir.mkdir(parents=True, exist_ok=True)
    return runner


def test_it_is_prefects_own_worker_under_its_own_type() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LocalWorker.type == ProcessWorker.type
        assert BaseWorker.get_worker_class_from_type("process") is ProcessWorker


def test_it_has_started_when_it_polls(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(self: Any, run_once: bool, with_healthcheck: bool, printer: Any) -> None:
        assert not self.started.is_set()
        printer("Worker started!")
        assert self.started.is_set()

    monkeypatch.setattr(ProcessWorker, "start", start)

    asyncio.run(LocalWorker(work_pool_name="cpu").start(printer=lambda _: None))


def test_a_runs_own_variables_name_no_programs_and_no_servers() -> None:
    given = {
        "EPOCHS": "3", "PATHS": "a", "PATH": "/evil", "LD_PRELOAD": "/evil.so",
        "PYTHONPATH": "/evil", "PREFECT_API_URL": "http://evil.example/api",
        "MLFLOW_TRACKING_URI": "http://evil.example", "MODELYARD_HOME": "/evil",
    }  # fmt: skip
    configuration = LocalJobConfiguration(command="x", env=given)
    run = FlowRun(flow_id=uuid4())

    configuration.prepare_for_flow_run(run)

    assert (configuration.env["EPOCHS"], configuration.env["PATHS"]) == ("3", "a")
    assert "evil" not in repr({name: configuration.env.get(name) for name in given})
    assert configuration.env["PATH"] == os.environ["PATH"]
    assert configuration.env["PREFECT__FLOW_RUN_ID"] == str(run.id)
