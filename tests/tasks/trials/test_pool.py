"""Trials as runs of their own, by the contract and beyond it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar

import httpx
import pytest
from prefect.client.schemas.objects import StateType
from prefect.states import Pending

from infra import run_lock
from infra.mlflow import MlflowException
from registry import tracking
from registry.tunings import trial_runs
from registry.tunings.trial_flows import TRIAL_LABEL, TUNING_LABEL
from tasks.trials import pool
from tasks.trials.base import Launcher, TrialEnded, TrialStarted
from tasks.trials.pool import PoolLauncher
from tests.processes import eventually
from tests.tasks.trials.contract import Contract
from tests.tasks.trials.fake_pool import FakePool
from tests.tasks.trials.scene import Scene, ended, trial

# Longer than the resync, which finds a change whose event was missed.
RESYNC = 3 * pool._RESYNC_SECONDS


@pytest.fixture(autouse=True)
def prefect(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePool]:
    monkeypatch.setattr(pool, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(pool, "EventSubscription", Unreachable)
    fake = FakePool.installed(monkeypatch)
    yield fake
    fake.close()


class Unreachable:
    """Prefect's events, when nobody sends them: the launcher polls."""

    def __init__(self, *_: str) -> None:
        pass

    async def listen(self, notify: Callable[[], None]) -> None:
        raise OSError("no connection")


class Events:
    """Prefect's events, sent by the test."""

    def __init__(self, *_: str) -> None:
        Events.last = self
        self.notify: Callable[[], None] | None = None

    last: ClassVar[Events]

    async def listen(self, notify: Callable[[], None]) -> None:
        self.notify = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, notify)
        await asyncio.Event().wait()


class TestEvents:
    @pytest.fixture
    def launcher(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[PoolLauncher]:
        monkeypatch.setattr(pool, "EventSubscription", Events)
        monkeypatch.setattr(pool, "_RESYNC_SECONDS", 1000.0)
        launcher = PoolLauncher(scene.trial_context(), scene.events.append)
        yield launcher
        launcher.close()

    def test_a_run_is_read_when_an_event_says_that_it_has_changed(
        self, scene: Scene, launcher: PoolLauncher, prefect: FakePool
    ) -> None:
        prefect.idle = True
        notify = eventually(lambda: Events.last.notify, "it listens")
        notify()  # connected
        launcher.launch(trial(0))
        eventually(lambda: prefect.runs, "its run is created")
        for _ in range(3):
            asked = prefect.asked
            notify()
            eventually(lambda before=asked: prefect.asked > before, "it is read")
        prefect.idle = False
        eventually(lambda: prefect.only().state.type == StateType.COMPLETED, "it ends")
        # For its launch, the launcher's start, the connection, and each of the three events.
        assert prefect.asked <= 6
        notify()

        assert scene.end(0) == TrialEnded(0)

    def test_a_run_that_begins_is_read_until_it_has_its_mlflow_run(
        self, scene: Scene, launcher: PoolLauncher, prefect: FakePool
    ) -> None:
        notify = eventually(lambda: Events.last.notify, "it listens")
        notify()
        launcher.launch(trial(0, until=str(scene.scratch / "until")))
        run = prefect.only()
        eventually(lambda: run.labels.get(tracking.MLFLOW_RUN_LABEL), "it has begun")
        label = run.labels.pop(tracking.MLFLOW_RUN_LABEL)
        asked = prefect.asked
        notify()
        eventually(lambda: prefect.asked > asked + 2, "it is read again")
        run.labels[tracking.MLFLOW_RUN_LABEL] = label
        eventually(lambda: scene.kinds(0) == ["TrialStarted"], "its beginning is reported")
        (scene.scratch / "until").touch()
        eventually(lambda: run.state.type == StateType.COMPLETED, "it ends")
        notify()

        assert scene.end(0) == TrialEnded(0)


class TestPool(Contract):
    def make(self, scene: Scene) -> Launcher:
        return PoolLauncher(scene.trial_context(), scene.events.append)

    def kill(self, launcher: Launcher) -> None:
        assert isinstance(launcher, PoolLauncher)
        launcher._closed.set()
        launcher._notifier.close()
        launcher._woken.set()
        launcher._poller.join(10)
        launcher._writer.close(10)

    def test_its_run_tells_whose_trial_it_is(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        launcher.launch(trial(3, reports="[1]"))
        scene.end(3)

        run = prefect.only()
        assert run.name == f"{scene.name} trial 3"
        assert run.labels[TUNING_LABEL] == scene.tuning
        assert run.labels[TRIAL_LABEL] == "3"
        assert run.parameters["hyperparameters"] == {"x": 3.0, "reports": "[1]"}
        (began, *_) = scene.of(3)
        assert began == TrialStarted(3, began.mlflow_run_id, str(run.id), 1)

    def test_it_is_created_once_though_the_answer_is_lost(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        prefect.lost = 2
        launcher.launch(trial(0))

        assert scene.end(0) == TrialEnded(0)
        assert prefect.created == 3
        assert len(prefect.runs) == 1
        assert scene.warnings.said == ["The trials' runs could not be read: no answer"]

    def test_one_that_was_lost_is_run_again(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        until = scene.scratch / "until"
        launcher.launch(trial(0, reports="[0.5]", until=str(until)))
        prefect.lose(prefect.only())
        eventually(lambda: scene.kinds(0).count("TrialStarted") == 2, "it begins again", RESYNC)
        until.touch()

        assert scene.end(0) == TrialEnded(0)
        assert scene.values(0) == [0.5]
        assert [one.attempts for one in scene.of(0) if isinstance(one, TrialStarted)] == [1, 2]

    def test_one_that_was_lost_twice_has_failed(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        launcher.launch(trial(0, until=str(scene.scratch / "never")))
        run = prefect.only()
        prefect.lose(run)
        eventually(lambda: run.run_count == 2, "it is run again", RESYNC)
        prefect.lose(run)

        end = scene.end(0, RESYNC)
        assert end.error is not None
        assert (end.error.code, end.error.message) == ("Crashed", "Its process was killed.")

    def test_one_that_is_lost_while_it_is_stopped_is_stopped(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        launcher.launch(trial(0, until=str(scene.scratch / "never")))
        run = prefect.only()
        eventually(lambda: scene.kinds(0), "it begins")
        with prefect._lock:
            launcher.stop(0)
            prefect._killed.add(run.id)
            prefect.set_flow_run_state = lambda *_, **__: None  # type: ignore[method-assign]

        assert scene.end(0, RESYNC) == TrialEnded(0, stopped=True)
        assert run.run_count == 1

    def test_one_whose_run_was_deleted_has_failed(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        launcher.launch(trial(0, until=str(scene.scratch / "never")))
        eventually(lambda: scene.kinds(0), "it begins")
        prefect.runs.clear()

        end = scene.end(0, RESYNC)
        assert end.error is not None
        assert end.error.code == "RunDeleted"

    def test_one_whose_run_was_deleted_has_its_place_while_it_is_executed(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        launcher.launch(trial(0, until=str(scene.scratch / "never")))
        eventually(lambda: scene.kinds(0), "it begins")
        with run_lock.scope():
            run_lock.acquire(scene.home, str(prefect.only().id))
            prefect.runs.clear()
            asked = prefect.asked
            eventually(lambda: prefect.asked > asked + 2, "it is asked for again")
            assert "TrialEnded" not in scene.kinds(0)

        assert scene.end(0).error is not None

    def test_one_whose_run_was_deleted_can_be_stopped(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        launcher.launch(trial(0, until=str(scene.scratch / "never")))
        eventually(lambda: scene.kinds(0), "it begins")
        prefect.down = True
        prefect.runs.clear()
        launcher.stop(0)
        prefect.down = False

        assert scene.end(0).error is not None

    def test_one_that_somebody_else_stopped(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        launcher.launch(trial(0, until=str(scene.scratch / "never")))
        run = prefect.only()
        eventually(lambda: scene.kinds(0), "it begins")
        pool.run_requests.request_stop(str(run.id))

        assert scene.end(0) == TrialEnded(0, stopped=True)

    def test_one_that_somebody_else_stops_after_a_restart_is_not_run_again(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        row = self._killed(
            scene, launcher, trial(0, reports="[1, 2]", until=str(scene.scratch / "never"))
        )
        again = self.make(scene)
        again.launch(row, again=True)
        eventually(lambda: scene.kinds(0), "it is found")
        pool.run_requests.request_stop(str(prefect.only().id))

        assert scene.end(0) == TrialEnded(0, stopped=True)
        again.close()

    def test_one_that_failed_while_nobody_looked_is_not_run_again(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        until = scene.scratch / "until"
        row = self._killed(scene, launcher, trial(0, reports="[1, 2]", until=str(until), code=4))
        until.touch()
        run = prefect.only()
        eventually(lambda: run.state and run.state.is_final(), "it fails")

        again = self.make(scene)
        again.launch(row, again=True)

        assert scene.end(0).error is not None
        assert scene.values(0) == [1, 2]
        assert run.run_count == 1
        again.close()

    def test_while_prefect_cannot_be_reached_nothing_is_lost(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        until = scene.scratch / "until"
        launcher.launch(trial(0, reports="[0.5, 0.25]", until=str(until)))
        eventually(lambda: scene.values(0), "it reports")
        prefect.down = True
        launcher.launch(trial(1, reports="[7]"))
        until.touch()
        run = prefect.only()
        eventually(lambda: run.state and run.state.is_final(), "it ends")
        eventually(lambda: scene.warnings.said, "somebody notices")
        assert "TrialEnded" not in scene.kinds(0)
        prefect.down = False

        assert [scene.end(0), scene.end(1)] == [TrialEnded(0), TrialEnded(1)]
        assert (scene.values(0), scene.values(1)) == ([0.5, 0.25], [7])
        assert len(scene.warnings.said) == 1

    def test_while_mlflow_cannot_be_asked_no_trial_ends(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        history = trial_runs.history
        monkeypatch.setattr(trial_runs, "history", _unreachable)
        launcher.launch(trial(0, reports="[0.5]"))
        eventually(lambda: scene.warnings.said, "somebody notices")
        assert scene.kinds(0) == ["TrialStarted"]
        monkeypatch.setattr(trial_runs, "history", history)

        assert scene.end(0) == TrialEnded(0)
        assert scene.values(0) == [0.5]

    def test_one_whose_mlflow_run_was_deleted_comes_to_its_end(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(*_: object) -> list[float]:
            raise MlflowException("gone", "RESOURCE_DOES_NOT_EXIST", 404)

        until = scene.scratch / "until"
        launcher.launch(trial(0, reports="[0.5]", until=str(until)))
        eventually(lambda: scene.values(0), "it reports")
        monkeypatch.setattr(trial_runs, "history", gone)
        until.touch()

        assert scene.end(0) == TrialEnded(0)
        assert scene.values(0) == [0.5]

    def test_one_that_prefect_refuses_has_failed_and_holds_up_no_other(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        launcher.launch(trial(0, reports="[0.5]", until=str(scene.scratch / "until")))
        eventually(lambda: scene.values(0), "it reports")
        prefect.refuses = True
        launcher.launch(trial(1))

        end = scene.end(1)
        assert end.error is not None
        assert end.error.code == "RunRefused"
        (scene.scratch / "until").touch()
        assert scene.end(0) == TrialEnded(0)

    def test_one_that_no_worker_takes_is_stopped_all_the_same(
        self, scene: Scene, launcher: Launcher, prefect: FakePool
    ) -> None:
        prefect.idle = True
        launcher.launch(trial(0))
        run = prefect.only()
        launcher.stop(0)

        assert scene.end(0) == TrialEnded(0, stopped=True)
        assert prefect.states[run.id] == ["Cancelled"]

    def test_one_that_a_worker_takes_at_the_moment_of_its_stop_is_ended_by_it(
        self, scene: Scene, prefect: FakePool
    ) -> None:
        prefect.idle = True
        submitted = pool.trial_flows.submit(
            {"hyperparameters": {"x": 1, "until": str(scene.scratch / "never")}},
            "taken", tuning=scene.tuning, parent=scene.parent.run_id, number=0,
        )  # fmt: skip
        run = prefect.only()
        really = prefect.set_flow_run_state

        def taken(run_id, state, *, force=False):  # type: ignore[no-untyped-def]
            if state.type == StateType.CANCELLED:
                really(run_id, Pending())
            really(run_id, state, force=force)

        prefect.set_flow_run_state = taken  # type: ignore[method-assign]
        pool.run_requests.request_stop(submitted)

        assert prefect.states[run.id] == ["Pending", "Cancelled", "Cancelling"]

    def test_closing_takes_a_bounded_time_whoever_does_not_answer(
        self, scene: Scene, launcher: Launcher, prefect: FakePool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        launcher.launch(trial(0, until=str(scene.scratch / "never")))
        eventually(lambda: scene.kinds(0), "it begins")
        prefect.down = True
        launcher.stop_timeout_seconds = 0.1

        launcher.close()

        assert scene.end(0) == TrialEnded(0, stopped=True)
        prefect.down = False

    def test_a_state_is_written_where_mlflow_does_not_answer_at_once(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        launcher.launch(trial(0))
        scene.end(0)
        row = ended(scene.begun(trial(0)))
        launcher.conclude(replace(row, mlflow_run_id="0" * 32))  # nobody is hurt by that
        launcher.conclude(row)
        launcher.close()

        assert scene.status(0) == ("FINISHED", "SUCCEEDED")
        assert tracking.client().get_run(row.mlflow_run_id).data.tags


def _unreachable(*_: object) -> list[float]:
    raise httpx.ConnectError("MLflow is away")
