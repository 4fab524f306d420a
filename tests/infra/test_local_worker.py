from __future__ import annotations

import abc
import asyncio
import logging
import os
import warnings
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
)
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker

from infra import local_worker, run_ends, run_process
from infra.home import Home
from infra.local_worker import LocalJobConfiguration, LocalWorker
from registry.runs import statuses


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


def test_it_has_started_when_it_takes_runs(
    home: Home, no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class Worker(LocalWorker, abc.ABC):  # so it is not registered as a type
        async def get_and_submit_flow_runs(self) -> Any:
            done.append("polled")

        async def _sync_and_initialize(self) -> None:
            done.append("sent a heartbeat")

        async def _emit_worker_started_event(self) -> None:
            assert not self.started.is_set()

        async def listen(self, notify: Any) -> None:
            notify()
            await asyncio.Event().wait()

    monkeypatch.setenv("MODELYARD_HOME", str(home.root))
    monkeypatch.setattr(local_worker.Runner, "__aenter__", _enter_runner)

    async def starts() -> None:
        worker = Worker(work_pool_name="cpu")
        works = asyncio.create_task(worker.start())
        async with asyncio.timeout(60):
            await worker.started.wait()
            while set(done) != {"polled", "sent a heartbeat"}:
                await asyncio.sleep(0.01)
        works.cancel()
        await asyncio.wait([works])

    asyncio.run(starts())


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


class FakeClient:
    """A run in Prefect."""

    def __init__(self, *history: State[Any], run_count: int = 0) -> None:
        self.history = list(history)
        self.run_count = run_count

    async def read_flow_run(self, run_id: UUID) -> FlowRun:
        return FlowRun.model_construct(id=run_id, state=self.history[-1], run_count=self.run_count)

    async def read_flow_run_states(self, _: UUID) -> list[State[Any]]:
        return self.history

    async def set_flow_run_state(self, _: UUID, state: State[Any], force: bool) -> None:
        self.history.append(state)


class TestConclusion:
    """What becomes of a run whose process has ended."""

    @pytest.fixture(autouse=True)
    def _worker(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MODELYARD_HOME", str(home.root))
        self.run = FlowRun.model_construct(id=uuid4(), name="a run", flow_id=uuid4())
        self.worker = LocalWorker(work_pool_name="cpu")
        logger = logging.getLogger("test")  # Prefect's own sends its lines to a server
        monkeypatch.setattr(self.worker, "get_flow_run_logger", lambda _: logger)

    def _conclude(self, *history: State[Any], reason: str = "Exit status 3.") -> list[State[Any]]:
        """The states that the run gets."""
        client = FakeClient(*history)
        self.worker._client = client  # type: ignore[assignment]
        asyncio.run(self.worker._conclude(self.run, reason))
        return client.history[len(history) :]

    @pytest.mark.parametrize(
        ("state", "becomes"),
        [
            (Running(), "CRASHED"),
            (Cancelling(), "CANCELLED"),
            (Pending(), "SCHEDULED"),
            # What is final stays, and what is queued already as well.
            (Completed(), None), (Failed(), None), (Crashed(), None), (Cancelled(), None),
            (Scheduled(), None), (AwaitingRetry(), None), (Paused(), None),
        ],
    )  # fmt: skip
    def test_it_follows_from_its_state(self, state: State[Any], becomes: str | None) -> None:
        found = self._conclude(Scheduled(), state)

        assert [one.type.value for one in found] == ([becomes] if becomes else [])

    @pytest.mark.parametrize(
        ("state", "cancelled", "set_"),
        [
            (Cancelling(), True, True),
            (Cancelled(), True, False),
            (Completed(), False, False),
            # It is retried since.
            (AwaitingRetry(), False, False), (Pending(), False, False), (Running(), False, False),
        ],
    )  # fmt: skip
    def test_only_what_is_being_stopped_becomes_cancelled(
        self, state: State[Any], cancelled: bool, set_: bool
    ) -> None:
        client = FakeClient(state)
        proposer = local_worker._Proposer(client=client)  # type: ignore[arg-type]
        stopped = self.run.model_copy(update={"state": Cancelling()})

        assert asyncio.run(proposer.propose_cancelled(stopped)) is cancelled
        assert [one.type.value for one in client.history[1:]] == ["CANCELLED"] * set_

    def test_a_retry_is_not_concluded_with_the_attempt_before_it(self) -> None:
        client = FakeClient(Pending(), run_count=1)
        self.worker._client = client  # type: ignore[assignment]

        asyncio.run(self.worker._conclude(self.run, "Exit status 0."))

        assert len(client.history) == 1

    def test_one_that_never_begins_ends_after_a_few_tries_with_the_reason(
        self, home: Home
    ) -> None:
        path = run_process.error_path(home, str(self.run.id))
        path.parent.mkdir(parents=True)
        path.write_text("ImportError: no module named flows")
        history: list[State[Any]] = [Scheduled()]
        while history[-1].type == StateType.SCHEDULED:
            history += [Pending(), *self._conclude(*history, Pending())]

        assert len(history) == 1 + 2 * run_ends.STARTS
        assert statuses.word("train", history[-1]) == "CREATE FAILED"
        assert "Exit status 3. ImportError: no module named flows" in history[-1].message

    def test_the_last_word_of_a_process_that_is_still_ending_is_waited_for(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = FakeClient(Running())
        self.worker._client = client  # type: ignore[assignment]
        asked: list[bool] = []

        def held(*_: Any) -> bool:
            asked.append(True)
            if len(asked) == 3:
                client.history.append(Completed())
            return len(asked) < 3

        monkeypatch.setattr(local_worker.run_lock, "is_held", held)
        monkeypatch.setattr(local_worker, "_LOCK_POLL_SECONDS", 0)
        asyncio.run(self.worker._conclude(self.run, "Exit status 137."))

        assert [state.type for state in client.history] == ["RUNNING", "COMPLETED"]

    def test_the_run_is_the_workers_from_its_claim_to_its_conclusion(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[bool] = []

        async def submit(worker: LocalWorker, run: FlowRun, _: Any) -> None:
            seen.append(worker.executes(run.id))

        monkeypatch.setattr(ProcessWorker, "_submit_run_and_capture_errors", submit)
        asyncio.run(self.worker._submit_run_and_capture_errors(self.run))

        assert seen == [True]
        assert not self.worker.executes(self.run.id)
        self.worker._submitting_flow_run_ids.add(self.run.id)
        assert self.worker.executes(self.run.id)

    def test_what_keeps_a_process_from_starting_is_raised_out_of_its_groups(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cause = FileNotFoundError(2, "No such file or directory", "/nope")

        async def fails(*_: Any) -> None:
            raise ExceptionGroup("outer", [ExceptionGroup("inner", [cause])])

        monkeypatch.setattr(self.worker, "_run", fails)
        with pytest.raises(FileNotFoundError) as raised:
            asyncio.run(self.worker.run(self.run, LocalJobConfiguration()))
        assert raised.value is cause
