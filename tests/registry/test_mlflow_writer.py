"""Writes to a real MLflow, and to one that is broken."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from requests import ConnectionError as NoConnectionError
from requests import HTTPError, Response

from infra.mlflow import MlflowException
from registry import mlflow_writer, tracking
from registry.mlflow_writer import MetricValue, MlflowWriter, is_deleted
from registry.tunings import trial_runs
from tests.processes import eventually
from tests.registry.fake_runs import PrefectClient
from tests.registry.tuned import Tuning, files

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_writer, "_FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(mlflow_writer, "_RETRY_SECONDS", 0.01)


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> Tuning:
    return Tuning(PrefectClient.installed(monkeypatch), name, tmp_path)


@pytest.fixture
def run_id(tuning: Tuning) -> str:
    return trial_runs.open_trial(tuning.parent, 0)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def writer(said: list[str]) -> Iterator[MlflowWriter]:
    made = MlflowWriter(said.append)
    yield made
    made.close(30)


def end(writer: MlflowWriter, run_id: str, state: str, reason: str, log: Path) -> None:
    """End the run of a trial, as its launcher does."""
    tags = trial_runs.state_tags(state, reason)
    writer.end_run(run_id, trial_runs.status(state), tags, log)


def history(run_id: str, metric: str = "loss") -> list[tuple[int, float]]:
    found = tracking.client().get_metric_history(run_id, metric)
    return [(one.step, one.value) for one in found]


class Server:
    """Stands before MLflow and answers as it is told; what came through is kept."""

    def __init__(self, writer: MlflowWriter, *problems: Exception | None) -> None:
        self.problems = list(problems)
        self.taken: list[tuple[list[float], list[str], list[str]]] = []
        self.asked = 0
        self._really = writer._client.log_batch
        writer._client.log_batch = self.log_batch  # type: ignore[method-assign]

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        self.asked += 1
        problem = self.problems.pop(0) if self.problems else None
        if problem is not None:
            raise problem
        self._really(run_id, metrics, params, tags)
        values = [one.value for one in metrics]
        self.taken.append((values, [key for key, _ in params], [value for _, value in tags]))


def refused(code: str = "INVALID_PARAMETER_VALUE") -> MlflowException:
    return MlflowException("no", code, 400)


def broken() -> MlflowException:
    return MlflowException("It is away.")


class TestMetrics:
    def test_they_come_in_order_with_their_steps(self, writer: MlflowWriter, run_id: str) -> None:
        for value, step in ((3.0, None), (1.0, None), (2.0, 7), (0.5, None)):
            writer.log_metric(run_id, "loss", value, step, None)
        writer.log_metric(run_id, "accuracy", 1.0, None, 1000.0)

        assert writer.close(30) == []
        assert history(run_id) == [(0, 3.0), (1, 1.0), (7, 2.0), (8, 0.5)]
        (other,) = tracking.client().get_metric_history(run_id, "accuracy")
        assert (other.step, other.timestamp) == (0, 1_000_000)

    def test_there_may_be_more_than_a_batch(self, writer: MlflowWriter, run_id: str) -> None:
        writer.log_params(run_id, {f"p{number}": number for number in range(100)})
        for number in range(2750):
            writer.log_metric(run_id, "loss", number, None, None)
        end(writer, run_id, "SUCCEEDED", "", Path("/nowhere"))

        assert writer.close(60) == []
        assert history(run_id) == [(number, float(number)) for number in range(2750)]
        run = tracking.client().get_run(run_id)
        assert len(run.data.params) == 100
        assert run.info.status == "FINISHED"

    @pytest.mark.parametrize("at", [math.nan, math.inf, -1.0, 1e300])
    def test_a_time_that_is_none_is_now(
        self, writer: MlflowWriter, run_id: str, at: float
    ) -> None:
        writer.log_metric(run_id, "loss", 1.0, 0, at)

        assert writer.close(30) == []
        (found,) = tracking.client().get_metric_history(run_id, "loss")
        assert abs(found.timestamp / 1000 - time.time()) < 3600

    def test_what_is_no_number_is_kept(self, writer: MlflowWriter, run_id: str) -> None:
        for value in (math.nan, math.inf, -math.inf):
            writer.log_metric(run_id, "loss", value, None, None)

        assert writer.close(30) == []
        assert repr(trial_runs.history(run_id, "loss")) == "[nan, inf, -inf]"

    def test_an_earlier_attempts_steps_go_on(self, writer: MlflowWriter, run_id: str) -> None:
        writer.log_metric(run_id, "loss", 1.0, 4, None)
        end(writer, run_id, "KILLED", "", Path("/nowhere"))
        writer.close(30)
        again = MlflowWriter(print)

        assert again.reopen(run_id) == {"loss": 5}
        assert tracking.client().get_run(run_id).info.status == "RUNNING"
        again.log_metric(run_id, "loss", 2.0, None, None)
        again.close(30)
        assert history(run_id) == [(4, 1.0), (5, 2.0)]

    def test_one_that_is_gone_cannot_be_gone_on_with(
        self, writer: MlflowWriter, run_id: str
    ) -> None:
        tracking.delete_run(run_id)
        for gone in (run_id, "0" * 32):
            with pytest.raises(MlflowException) as raised:
                writer.reopen(gone)
            assert is_deleted(raised.value)


class TestConclusion:
    @pytest.mark.parametrize(
        ("state", "status"),
        [
            ("SUCCEEDED", "FINISHED"), ("EARLY_STOPPED", "FINISHED"), ("KILLED", "KILLED"),
            ("FAILED", "FAILED"), ("METRICS_UNAVAILABLE", "FAILED"),
        ],
    )  # fmt: skip
    def test_the_state_comes_with_all_else(
        self, writer: MlflowWriter, tuning: Tuning, run_id: str, tmp_path: Path, mlflow: Any,
        state: str, status: str,
    ) -> None:  # fmt: skip
        log = tmp_path / "train.log"
        log.write_text("a line")
        writer.log_params(run_id, {"x": 0.5, "long": "x" * 7000})
        writer.log_metric(run_id, "loss", 1.0, None, None)
        end(writer, run_id, state, "Because.", log)

        assert writer.close(30) == []
        run = tracking.client().get_run(run_id)
        assert (run.info.status, run.data.metrics) == (status, {"loss": 1.0})
        assert run.data.params["x"] == "0.5"
        assert run.data.params["long"] == "x" * 6000
        assert run.data.tags[tracking.STATE_TAG] == state
        assert run.data.tags[tracking.REASON_TAG] == "Because."
        assert files(run_id, mlflow) == {"train.log"}
        assert run_id not in trial_runs.unsettled(tuning.parent)

    def test_a_mark_leaves_the_run_to_its_own_end(self, writer: MlflowWriter, run_id: str) -> None:
        writer.set_tags(run_id, trial_runs.state_tags("EARLY_STOPPED", ""))

        assert writer.close(30) == []
        run = tracking.client().get_run(run_id)
        assert (run.info.status, run.data.tags[tracking.STATE_TAG]) == ("RUNNING", "EARLY_STOPPED")
        assert tracking.REASON_TAG not in run.data.tags

    def test_a_log_that_cannot_be_read_costs_nothing_else(
        self, writer: MlflowWriter, said: list[str], run_id: str, tmp_path: Path
    ) -> None:
        class Gone(type(tmp_path)):  # type: ignore[misc]
            def exists(self) -> bool:
                return True

        end(writer, run_id, "SUCCEEDED", "", Gone(tmp_path / "gone.log"))
        assert writer.close(30) == [f"the log of run {run_id}"]

        assert tracking.client().get_run(run_id).info.status == "FINISHED"
        assert len(said) == 2
        assert said[0].startswith(f"MLflow has not accepted the log of run {run_id}")


class TestBrokenServer:
    def test_what_is_not_taken_now_is_sent_again_before_what_came_since(
        self, writer: MlflowWriter, said: list[str], run_id: str
    ) -> None:
        server = Server(writer, broken(), broken(), broken())
        writer.log_params(run_id, {"x": 1})
        writer.log_metric(run_id, "loss", 1.0, None, None)
        eventually(lambda: server.asked >= 2, "it is tried")
        writer.log_metric(run_id, "loss", 2.0, None, None)
        eventually(lambda: server.taken, "it is taken")

        assert writer.close(30) == []
        assert history(run_id) == [(0, 1.0), (1, 2.0)]
        assert tracking.client().get_run(run_id).data.params == {"x": "1"}
        assert said == []

    def test_what_is_observed_during_a_request_that_fails_comes_after(
        self, writer: MlflowWriter, run_id: str
    ) -> None:
        server = Server(writer)
        really = writer._client.log_batch

        def fails(*_: Any) -> None:
            writer.log_metric(run_id, "loss", 2.0, None, None)
            writer._client.log_batch = really  # type: ignore[method-assign]
            raise broken()

        writer._client.log_batch = fails  # type: ignore[method-assign]
        writer.log_metric(run_id, "loss", 1.0, None, None)
        eventually(lambda: server.taken, "it is taken")

        assert server.taken == [([1.0, 2.0], [], [])]

    def test_after_the_first_of_several_requests_the_others_are_sent_again(
        self, writer: MlflowWriter, run_id: str
    ) -> None:
        Server(writer, None, broken())
        for number in range(2000):
            writer.log_metric(run_id, "loss", number, None, None)
        end(writer, run_id, "SUCCEEDED", "", Path("/nowhere"))

        assert writer.close(60) == []
        assert history(run_id) == [(number, float(number)) for number in range(2000)]
        assert tracking.client().get_run(run_id).info.status == "FINISHED"

    def test_what_is_refused_costs_nothing_else(
        self, writer: MlflowWriter, said: list[str], run_id: str
    ) -> None:
        writer.log_params(run_id, {"y" * 300: 1})  # longer than MLflow takes
        writer.log_metric(run_id, "loss", 1.0, None, None)
        writer.log_metric(run_id, "no@name", 1.0, None, None)
        eventually(lambda: len(said) == 2, "both are refused")
        writer.log_metric(run_id, "loss", 2.0, None, None)
        end(writer, run_id, "SUCCEEDED", "", Path("/nowhere"))

        assert writer.close(30) == []
        run = tracking.client().get_run(run_id)
        assert run.data.tags[tracking.STATE_TAG] == "SUCCEEDED"
        assert run.info.status == "FINISHED"
        assert history(run_id)[-1] == (1, 2.0)
        assert len(said) == 2
        assert all(line.startswith(f"MLflow refuses values of run {run_id}") for line in said)

    def test_a_run_that_was_deleted_is_told_of_once(
        self, writer: MlflowWriter, said: list[str], run_id: str
    ) -> None:
        tracking.delete_run(run_id)
        for number in range(3):
            writer.log_metric(run_id, "loss", number, None, None)
            eventually(lambda: not writer._pending, "it is sent")
        end(writer, run_id, "SUCCEEDED", "", Path("/nowhere"))

        assert writer.close(30) == []
        assert said == [f"The MLflow run {run_id} is deleted: nothing more is written to it."]

    @pytest.mark.parametrize("status", [429, 503])
    def test_one_that_has_too_much_to_do_is_asked_again(
        self, writer: MlflowWriter, said: list[str], run_id: str, status: int
    ) -> None:
        Server(writer, *2 * [MlflowException("no", "INTERNAL_ERROR", status)])
        writer.log_metric(run_id, "loss", 1.0, None, None)
        eventually(lambda: history(run_id), "it is taken")

        assert said == []

    def test_one_that_answers_nonsense_is_asked_again(
        self, writer: MlflowWriter, said: list[str], run_id: str
    ) -> None:
        Server(writer, MlflowException("<html>"), KeyError("run_info"))
        writer.log_metric(run_id, "loss", 1.0, None, None)
        eventually(lambda: history(run_id), "it is taken")

        assert said == []

    def test_one_that_is_away_at_the_end_is_not_waited_for_long(
        self, writer: MlflowWriter, said: list[str], run_id: str
    ) -> None:
        server = Server(writer, *[broken() for _ in range(10_000)])
        writer.log_metric(run_id, "loss", 1.0, None, None)
        writer.set_tags(run_id, trial_runs.state_tags("SUCCEEDED", ""))
        eventually(lambda: server.asked > 1, "it is tried")

        missing = writer.close(0.2)
        assert missing == [
            f"{what} of run {run_id}" for what in ("tags", "metrics and parameters")
        ]
        assert said == [f"MLflow has not received {', '.join(missing)}."]
        assert not writer._thread.is_alive()

    def test_one_that_never_answers_is_given_up(
        self, writer: MlflowWriter, said: list[str], run_id: str
    ) -> None:
        answers = threading.Event()
        writer._client.log_batch = lambda *_: answers.wait(60)  # type: ignore[method-assign]
        writer.log_metric(run_id, "loss", 1.0, None, None)

        assert writer.close(0.2) == [f"metrics and parameters of run {run_id}"]
        assert said == [f"MLflow has not received metrics and parameters of run {run_id}."]
        answers.set()

    def test_with_a_dead_server_nobody_waits(
        self, monkeypatch: pytest.MonkeyPatch, said: list[str], run_id: str
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        writer = MlflowWriter(said.append)
        writer.log_metric(run_id, "loss", 1.0, None, None)
        writer.set_tags(run_id, trial_runs.state_tags("SUCCEEDED", ""))
        writer.close(2)

        assert said
        eventually(lambda: not writer._thread.is_alive(), "its thread ends")


def test_everything_is_there_in_the_end(writer: MlflowWriter, run_id: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in it").write_text("x")
    (tmp_path / "file").write_text("y")
    values = [MetricValue("a/b", float(n), n, 1000.0 + n) for n in range(1500)]
    done: list[str] = []
    writer.submit(
        "metrics", lambda: writer.write_metrics(run_id, values), lambda: done.append("metrics")
    )
    writer.submit("tags", lambda: writer.write_tags(run_id, {"t": "1"}))
    writer.submit("a folder", lambda: writer.upload(run_id, tmp_path / "folder", "deep/folder"))
    writer.submit("a file", lambda: writer.upload(run_id, tmp_path / "file", ""))
    assert writer.close(60) == []
    mlflow = tracking.client()
    assert len(mlflow.get_metric_history(run_id, "a/b")) == 1500
    assert mlflow.get_run(run_id).data.tags["t"] == "1"
    assert [one.path for one in mlflow.list_artifacts(run_id, "deep/folder")] == [
        "deep/folder/in it"
    ]
    assert "file" in [one.path for one in mlflow.list_artifacts(run_id)]
    assert done == ["metrics"]


def test_the_same_twice_is_there_once(writer: MlflowWriter, run_id: str) -> None:
    for _ in range(2):
        writer.submit(
            "metrics", lambda: writer.write_metrics(run_id, [MetricValue("a", 1.0, 0, 5.0)])
        )
    assert writer.close(60) == []
    assert len(tracking.client().get_metric_history(run_id, "a")) == 1


@pytest.mark.parametrize(
    "error",
    [MlflowException("it is starting"), NoConnectionError("refused"), OSError("reset")],
)
def test_what_mlflow_cannot_take_now_is_tried_again(
    writer: MlflowWriter, error: Exception, said: list[str]
) -> None:
    tried: list[int] = []

    def write() -> None:
        tried.append(1)
        if len(tried) < 4:
            raise error

    writer.submit("it", write)
    assert writer.close(60) == []
    assert (len(tried), said) == (4, [])


def http_error(status: int) -> HTTPError:
    response = Response()
    response.status_code = status
    return HTTPError(f"it is {status}", response=response)


@pytest.mark.parametrize(
    "error",
    [
        refused(),
        http_error(413),
        FileNotFoundError("gone"),
    ],
)
def test_what_is_refused_for_good_is_told_and_the_rest_goes_on(
    writer: MlflowWriter, error: Exception, said: list[str]
) -> None:
    tried: list[int] = []

    def refused() -> None:
        tried.append(1)
        raise error

    done: list[str] = []
    writer.submit("the bad one", refused, lambda: done.append("bad"))
    writer.submit("the good one", lambda: None, lambda: done.append("good"))
    assert writer.close(60) == ["the bad one"]
    assert (len(tried), done) == (1, ["good"])
    assert "the bad one" in said[0]


def test_a_server_that_is_overloaded_is_asked_again(writer: MlflowWriter) -> None:
    errors: list[Any] = [http_error(503), http_error(429), None]

    def write() -> None:
        error = errors.pop(0)
        if error:
            raise error

    writer.submit("it", write)
    assert writer.close(60) == []
    assert errors == []


def test_while_mlflow_is_away_nobody_waits_and_what_is_missing_is_named(
    writer: MlflowWriter,
) -> None:
    def fail() -> None:
        raise MlflowException("away")

    writer.submit("first", fail)
    writer.submit("second", lambda: None)
    assert writer.close(0.05) == ["first", "second"]


def test_what_hangs_is_named_too(writer: MlflowWriter) -> None:
    began, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        let_go.wait(30)

    writer.submit("hanging", hang)
    writer.submit("behind it", lambda: None)
    eventually(began.is_set, "it has begun")
    assert writer.close(0.01) == ["hanging", "behind it"]
    let_go.set()


def test_many_missing_writes_are_counted(
    writer: MlflowWriter, said: list[str], run_id: str
) -> None:
    def fail() -> None:
        raise MlflowException("away")

    for number in range(12):
        writer.submit(f"write {number}", fail)
    assert len(writer.close(0.05, "It is kept.")) == 12
    assert said[-1].endswith("write 9 and 2 more. It is kept.")


def test_more_parameters_and_tags_than_fit_into_a_request(
    writer: MlflowWriter, run_id: str
) -> None:
    writer.log_params(run_id, {f"p{number}": number for number in range(250)})
    writer.log_metric(run_id, "loss", 1.0)
    writer.set_tags(run_id, {f"t{number}": "x" for number in range(150)})

    assert writer.close(30) == []
    data = tracking.client().get_run(run_id).data
    assert (len(data.params), data.metrics) == (250, {"loss": 1.0})
    assert {f"t{number}" for number in range(150)} <= data.tags.keys()
