"""When what is written to MLflow is sent, and in how many requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import mlflow_writer
from registry.mlflow_writer import MlflowWriter
from registry.tunings import trial_runs
from tests.processes import eventually
from tests.registry.fake_runs import PrefectClient
from tests.registry.test_mlflow_writer import Server, end, history
from tests.registry.tuned import Tuning

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> Tuning:
    return Tuning(PrefectClient.installed(monkeypatch), name, tmp_path)


@pytest.fixture
def run_id(tuning: Tuning) -> str:
    return trial_runs.open_trial(tuning.parent, 0)


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch, run_id: str) -> Iterator[MlflowWriter]:
    monkeypatch.setattr(mlflow_writer, "_FLUSH_SECONDS", 0.05)
    made = MlflowWriter(print)
    yield made
    made.close(30)


class Clock:
    """The writer's clock, which stands still until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(mlflow_writer, "time", self)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()


class TestBatches:
    def test_each_run_is_sent_when_it_has_waited_itself(
        self, monkeypatch: pytest.MonkeyPatch, writer: MlflowWriter, tuning: Tuning, run_id: str
    ) -> None:
        server, clock = Server(writer), Clock(monkeypatch)
        writer.log_params(run_id, {"x": 1})
        clock.now = 0.04
        writer.log_params(trial_runs.open_trial(tuning.parent, 1), {"y": 2})
        clock.now = 0.06
        eventually(lambda: server.taken, "the first is due")
        idle = threading.Event()
        writer.submit("nothing", idle.set)

        assert idle.wait(60)
        assert [params for _, params, _ in server.taken] == [["x"]]
        clock.now = 0.1
        eventually(lambda: len(server.taken) == 2, "the second is due")

    def test_a_run_that_ends_first_takes_one_request(
        self, monkeypatch: pytest.MonkeyPatch, writer: MlflowWriter, run_id: str
    ) -> None:
        server = Server(writer)
        Clock(monkeypatch)
        writer.log_params(run_id, {"x": 1})
        writer.log_metric(run_id, "loss", 0.5)
        end(writer, run_id, "SUCCEEDED", "", Path("/nowhere"))

        assert writer.close(30) == []
        assert server.taken == [([0.5], ["x"], ["SUCCEEDED"])]

    def test_with_nothing_pending_the_thread_sleeps(
        self, writer: MlflowWriter, run_id: str
    ) -> None:
        waits: list[float | None] = []
        really = writer._seconds_until_due

        def seconds() -> float | None:
            waits.append(really())
            return waits[-1]

        writer._seconds_until_due = seconds  # type: ignore[method-assign]
        writer.log_metric(run_id, "loss", 0.5)
        eventually(lambda: history(run_id), "it is sent")
        eventually(lambda: waits[-1] is None, "nothing is waited for but the queue")
