"""A script that runs: with GPUs of its own, until it ends, is stopped or is late."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra import gpus
from infra.errors import RunFailedError
from infra.home import Home
from infra.settings import Settings
from infra.workloads.exit_status import ExitCause, ExitStatus
from tasks.run_directory import RunDirectory
from tasks.training import checkpoints, overlay, script_execution, training_steps
from tasks.training.overlay import Interpreter
from tasks.training.script_execution import ScriptContext
from tasks.training.training_request import Training
from tests.processes import eventually

_GPU = {"resources": {"instance_type": "gpu.t4"}}


class Told:
    """What was recorded while the script ran."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.lines: list[str] = []
        self.open = False

    @contextlib.contextmanager
    def __call__(self, names: Sequence[str]) -> Iterator[Callable[[int, str], None]]:
        self.names += names
        self.open = True
        yield lambda _, line: self.lines.append(line)
        self.open = False


@pytest.fixture(autouse=True)
def _mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")


@pytest.fixture
def one_gpu(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a machine with a single GPU, which no other test uses."""
    folder = tmp_path / "gpus"
    folder.mkdir()
    monkeypatch.setattr(gpus, "folder", lambda: folder)
    monkeypatch.setattr(gpus, "_POLL_SECONDS", 0.01)
    return settings.model_copy(update={"gpus": "a"})


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def run(
    given: Callable[..., Training],
    run_dir: RunDirectory,
    home: Home,
    settings: Settings,
    told: Told,
) -> Callable[..., ExitStatus]:
    """Runs a script to its end."""

    def ran(text: str, *, settings: Settings = settings, **more: Any) -> ExitStatus:
        conditions = {
            "deadline": None, "stop_requested": lambda: False,
            **{name: more.pop(name) for name in ("deadline", "stop_requested") if name in more},
        }  # fmt: skip
        request = given(**more)
        Path(request.algorithm.uri, "train.py").write_text(text)
        prepared = training_steps.prepare(
            request, run_dir, home, settings, retried=False, log=lambda _: None
        )
        context = ScriptContext(
            home=home, settings=settings, flow_run_id="run", mlflow_run_id="mlflow",
            holder="the test", logger=logging.getLogger("tests.running"), **conditions,
        )  # fmt: skip
        return script_execution.run(request, prepared, run_dir, context, told)

    return ran


def test_what_it_prints_is_recorded_and_that_it_ended_well_is_kept(
    run: Callable[..., ExitStatus], run_dir: RunDirectory, told: Told
) -> None:
    ended = run("import os; print(os.environ['MLFLOW_RUN_ID'], os.getcwd())")

    assert (ended.cause, ended.code) == (ExitCause.EXITED, 0)
    assert told.lines == [f"mlflow {run_dir.source}"]
    assert (told.names, told.open) == ([""], False)
    assert run_dir.finished_marker.exists()


@pytest.mark.parametrize(
    ("more", "ending"),
    [
        ({}, ExitCause.EXITED),
        ({"stop_requested": lambda: True}, ExitCause.STOPPED),
        ({"deadline": 0.001}, ExitCause.TIMED_OUT),
    ],
    ids=["fails", "stopped", "late"],
)
def test_after_any_other_end_it_has_not(
    run: Callable[..., ExitStatus], run_dir: RunDirectory, more: dict[str, Any], ending: ExitCause
) -> None:
    seconds = 600 if more else 0
    ended = run(f"import sys, time; time.sleep({seconds}); sys.exit(3)", **more)

    assert ended.cause is ending
    assert not run_dir.finished_marker.exists()


def test_its_environment_is_released_at_its_end(
    run: Callable[..., ExitStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    @contextlib.contextmanager
    def using(*_: Any) -> Iterator[Interpreter]:
        yield Interpreter(sys.executable)
        order.append("released")

    monkeypatch.setattr(overlay, "using", using)
    monkeypatch.setattr(gpus, "lease", _noting(gpus.lease, order))
    run("")

    assert order == ["its GPUs are free", "released"]


def _noting(lease: Callable[..., Any], order: list[str]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def noted(*args: Any, **how: Any) -> Iterator[Any]:
        with lease(*args, **how) as found:
            yield found
        order.append("its GPUs are free")

    return noted


def test_its_last_checkpoints_are_there_when_it_has_ended(
    run: Callable[..., ExitStatus], run_dir: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    @contextlib.contextmanager
    def mirrored(folder: Path, uri: str, **_: Any) -> Iterator[None]:
        order.append("before")
        yield
        order.append("with the marker" if run_dir.finished_marker.exists() else "without")

    monkeypatch.setattr(checkpoints, "mirrored", mirrored)
    run("")

    assert order == ["before", "with the marker"]


class TestGpus:
    def test_it_sees_its_own(
        self, run: Callable[..., ExitStatus], one_gpu: Settings, told: Told
    ) -> None:
        see = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
        run(see, settings=one_gpu, **_GPU)

        assert told.lines == ["a"]
        assert (gpus.folder() / "a.lock").read_text() == "the test"
        assert gpus._is_free(gpus.folder() / "a.lock")

    def test_without_any_it_runs_on_the_cpu_and_says_so(
        self, run: Callable[..., ExitStatus], one_gpu: Settings, told: Told,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        none = one_gpu.model_copy(update={"gpus": "none"})
        see = "import os; print([os.environ['CUDA_VISIBLE_DEVICES']])"
        ended = run(see, settings=none, **_GPU)

        assert (ended.code, told.lines) == (0, ["['']"])
        assert "The script runs on the CPU" in caplog.text

    def test_one_that_is_stopped_while_it_waits_never_begins(
        self, run: Callable[..., ExitStatus], one_gpu: Settings, told: Told
    ) -> None:
        waits = iter([False, False, False])
        with _held(one_gpu):
            ended = run("", settings=one_gpu, stop_requested=lambda: next(waits, True), **_GPU)

        assert ended == ExitStatus(0, cause=ExitCause.STOPPED)
        assert told.names == []

    def test_one_that_waits_too_long_has_failed_and_says_for_whom(
        self, run: Callable[..., ExitStatus], one_gpu: Settings, told: Told
    ) -> None:
        with _held(one_gpu), pytest.raises(RunFailedError) as raised:
            run("", settings=one_gpu, deadline=time.monotonic() + 0.05, max_minutes=2, **_GPU)

        assert (raised.value.code, raised.value.state) == ("Timeout", "TIMED OUT")
        assert "waited for a GPU (a by somebody else) for its 2 minutes" in raised.value.message
        assert told.names == []

    def test_one_that_waits_begins_when_it_is_free(
        self, run: Callable[..., ExitStatus], one_gpu: Settings, told: Told,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        held = contextlib.ExitStack()
        held.enter_context(_held(one_gpu))

        def stop() -> bool:
            if "Waiting for a GPU: a by somebody else" in caplog.text:
                held.close()
            return False

        with caplog.at_level(logging.INFO):
            assert run("print(1)", settings=one_gpu, stop_requested=stop, **_GPU).code == 0
        assert told.lines == ["1"]


@contextlib.contextmanager
def _held(settings: Settings) -> Iterator[None]:
    """Somebody else has the GPU."""
    with gpus.lease(
        gpus.devices(settings), 1, holder="somebody else", shared=False,
        waiting=lambda _: None, give_up=lambda: False,
    ) as lease:  # fmt: skip
        eventually(lambda: lease, "it is held")
        yield
