"""What trials leave in a real MLflow, and in one that is broken."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException, RestException

from registry import tracking, trial_book, trial_runs
from registry.trial_book import TrialBook
from tests.processes import eventually
from tests.registry.fake_runs import PrefectClient
from tests.registry.tuned import Tuning, files

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_book, "_FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(trial_book, "_RETRY_SECONDS", 0.01)


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
def book(said: list[str]) -> Iterator[TrialBook]:
    made = TrialBook(said.append)
    yield made
    made.close(30)


def history(run_id: str, metric: str = "loss") -> list[tuple[int, float]]:
    found = tracking.client().get_metric_history(run_id, metric)
    return [(one.step, one.value) for one in found]


class Server:
    """Stands before MLflow and answers as it is told; what came through is kept."""

    def __init__(self, book: TrialBook, *problems: Exception | None) -> None:
        self.problems = list(problems)
        self.taken: list[tuple[list[float], list[str], list[str]]] = []
        self.asked = 0
        self._really = book._store.log_batch
        book._store.log_batch = self.log_batch  # type: ignore[method-assign]

    def log_batch(self, run_id: str, metrics: Any, params: Any, tags: Any) -> None:
        self.asked += 1
        problem = self.problems.pop(0) if self.problems else None
        if problem is not None:
            raise problem
        self._really(run_id, metrics, params, tags)
        values = [one.value for one in metrics]
        self.taken.append((values, [one.key for one in params], [one.value for one in tags]))


def refused(code: str = "INVALID_PARAMETER_VALUE") -> RestException:
    return RestException({"error_code": code, "message": "no"})


def broken() -> MlflowException:
    return MlflowException("It is away.")


class TestMetrics:
    def test_they_come_in_order_with_their_steps(self, book: TrialBook, run_id: str) -> None:
        for value, step in ((3.0, None), (1.0, None), (2.0, 7), (0.5, None)):
            book.observe(run_id, "loss", value, step, None)
        book.observe(run_id, "accuracy", 1.0, None, 1000.0)

        assert book.close(30)
        assert history(run_id) == [(0, 3.0), (1, 1.0), (7, 2.0), (8, 0.5)]
        (other,) = tracking.client().get_metric_history(run_id, "accuracy")
        assert (other.step, other.timestamp) == (0, 1_000_000)

    def test_there_may_be_more_than_a_batch(self, book: TrialBook, run_id: str) -> None:
        book.begin(run_id, {f"p{number}": number for number in range(100)})
        for number in range(2750):
            book.observe(run_id, "loss", number, None, None)
        book.conclude(run_id, "SUCCEEDED", "", Path("/nowhere"))

        assert book.close(60)
        assert history(run_id) == [(number, float(number)) for number in range(2750)]
        run = tracking.client().get_run(run_id)
        assert len(run.data.params) == 100
        assert run.info.status == "FINISHED"

    @pytest.mark.parametrize("at", [math.nan, math.inf, -1.0, 1e300])
    def test_a_time_that_is_none_is_now(self, book: TrialBook, run_id: str, at: float) -> None:
        book.observe(run_id, "loss", 1.0, 0, at)

        assert book.close(30)
        (found,) = tracking.client().get_metric_history(run_id, "loss")
        assert abs(found.timestamp / 1000 - time.time()) < 3600

    def test_what_is_no_number_is_kept(self, book: TrialBook, run_id: str) -> None:
        for value in (math.nan, math.inf, -math.inf):
            book.observe(run_id, "loss", value, None, None)

        assert book.close(30)
        assert repr(trial_runs.history(run_id, "loss")) == "[nan, inf, -inf]"

    def test_an_earlier_attempts_steps_go_on(self, book: TrialBook, run_id: str) -> None:
        book.observe(run_id, "loss", 1.0, 4, None)
        book.conclude(run_id, "KILLED", "", Path("/nowhere"))
        book.close(30)
        again = TrialBook(print)

        assert again.resume(run_id) == {"loss": 5}
        assert tracking.client().get_run(run_id).info.status == "RUNNING"
        again.observe(run_id, "loss", 2.0, None, None)
        again.close(30)
        assert history(run_id) == [(4, 1.0), (5, 2.0)]

    def test_one_that_is_gone_cannot_be_gone_on_with(self, book: TrialBook, run_id: str) -> None:
        tracking.delete_run(run_id)
        for gone in (run_id, "0" * 32):
            with pytest.raises(MlflowException) as raised:
                book.resume(gone)
            assert trial_runs.is_gone(raised.value)


class TestConclusion:
    @pytest.mark.parametrize(
        ("state", "status"),
        [
            ("SUCCEEDED", "FINISHED"), ("EARLY_STOPPED", "FINISHED"), ("KILLED", "KILLED"),
            ("FAILED", "FAILED"), ("METRICS_UNAVAILABLE", "FAILED"),
        ],
    )  # fmt: skip
    def test_the_state_comes_with_all_else(
        self, book: TrialBook, tuning: Tuning, run_id: str, tmp_path: Path, mlflow: Any,
        state: str, status: str,
    ) -> None:  # fmt: skip
        log = tmp_path / "train.log"
        log.write_text("a line")
        book.begin(run_id, {"x": 0.5, "long": "x" * 7000})
        book.observe(run_id, "loss", 1.0, None, None)
        book.conclude(run_id, state, "Because.", log)

        assert book.close(30)
        run = tracking.client().get_run(run_id)
        assert (run.info.status, run.data.metrics) == (status, {"loss": 1.0})
        assert run.data.params["x"] == "0.5"
        assert run.data.params["long"] == "x" * 6000
        assert run.data.tags[tracking.STATE_TAG] == state
        assert run.data.tags[tracking.REASON_TAG] == "Because."
        assert files(run_id, mlflow) == {"train.log"}
        assert run_id not in trial_runs.unsettled(tuning.parent)

    def test_a_mark_leaves_the_run_to_its_own_end(self, book: TrialBook, run_id: str) -> None:
        book.mark(run_id, "EARLY_STOPPED", "")

        assert book.close(30)
        run = tracking.client().get_run(run_id)
        assert (run.info.status, run.data.tags[tracking.STATE_TAG]) == ("RUNNING", "EARLY_STOPPED")
        assert tracking.REASON_TAG not in run.data.tags

    def test_a_log_that_cannot_be_read_costs_nothing_else(
        self, book: TrialBook, said: list[str], run_id: str, tmp_path: Path
    ) -> None:
        class Gone(type(tmp_path)):  # type: ignore[misc]
            def exists(self) -> bool:
                return True

        book.conclude(run_id, "SUCCEEDED", "", Gone(tmp_path / "gone.log"))
        assert book.close(30)

        assert tracking.client().get_run(run_id).info.status == "FINISHED"
        assert len(said) == 1
        assert said[0].startswith("A trial's log was not kept")


class TestBrokenServer:
    def test_what_is_not_taken_now_is_sent_again_before_what_came_since(
        self, book: TrialBook, said: list[str], run_id: str
    ) -> None:
        server = Server(book, broken(), broken(), broken())
        book.begin(run_id, {"x": 1})
        book.observe(run_id, "loss", 1.0, None, None)
        eventually(lambda: server.asked >= 2, "it is tried")
        book.observe(run_id, "loss", 2.0, None, None)
        eventually(lambda: server.taken, "it is taken")

        assert book.close(30)
        assert history(run_id) == [(0, 1.0), (1, 2.0)]
        assert tracking.client().get_run(run_id).data.params == {"x": "1"}
        assert said == []

    def test_what_is_observed_during_a_request_that_fails_comes_after(
        self, book: TrialBook, run_id: str
    ) -> None:
        server = Server(book)
        really = book._store.log_batch

        def fails(*_: Any) -> None:
            book.observe(run_id, "loss", 2.0, None, None)
            book._store.log_batch = really  # type: ignore[method-assign]
            raise broken()

        book._store.log_batch = fails  # type: ignore[method-assign]
        book.observe(run_id, "loss", 1.0, None, None)
        eventually(lambda: server.taken, "it is taken")

        assert server.taken == [([1.0, 2.0], [], [])]

    def test_after_the_first_of_several_requests_the_others_are_sent_again(
        self, book: TrialBook, run_id: str
    ) -> None:
        Server(book, None, broken())
        for number in range(2000):
            book.observe(run_id, "loss", number, None, None)
        book.conclude(run_id, "SUCCEEDED", "", Path("/nowhere"))

        assert book.close(60)
        assert history(run_id) == [(number, float(number)) for number in range(2000)]
        assert tracking.client().get_run(run_id).info.status == "FINISHED"

    def test_what_is_refused_costs_nothing_else(
        self, book: TrialBook, said: list[str], run_id: str
    ) -> None:
        book.begin(run_id, {"y" * 300: 1})  # longer than MLflow takes
        book.observe(run_id, "loss", 1.0, None, None)
        book.observe(run_id, "no@name", 1.0, None, None)
        eventually(lambda: len(said) == 2, "both are refused")
        book.observe(run_id, "loss", 2.0, None, None)
        book.conclude(run_id, "SUCCEEDED", "", Path("/nowhere"))

        assert book.close(30)
        run = tracking.client().get_run(run_id)
        assert run.data.tags[tracking.STATE_TAG] == "SUCCEEDED"
        assert run.info.status == "FINISHED"
        assert history(run_id)[-1] == (1, 2.0)
        assert len(said) == 2
        assert all(line.startswith("MLflow refuses what a trial left") for line in said)

    def test_a_run_that_was_deleted_is_told_of_once(
        self, book: TrialBook, said: list[str], run_id: str
    ) -> None:
        tracking.delete_run(run_id)
        for number in range(3):
            book.observe(run_id, "loss", number, None, None)
            eventually(lambda: not book._waiting, "it is sent")
        book.conclude(run_id, "SUCCEEDED", "", Path("/nowhere"))

        assert book.close(30)
        assert said == [f"MLflow has the run {run_id} of a trial no more."]

    @pytest.mark.parametrize("code", ["REQUEST_LIMIT_EXCEEDED", "TEMPORARILY_UNAVAILABLE"])
    def test_one_that_has_too_much_to_do_is_asked_again(
        self, book: TrialBook, said: list[str], run_id: str, code: str
    ) -> None:
        Server(book, refused(code), refused(code))
        book.observe(run_id, "loss", 1.0, None, None)
        eventually(lambda: history(run_id), "it is taken")

        assert said == []

    def test_one_that_answers_nonsense_is_asked_again(
        self, book: TrialBook, said: list[str], run_id: str
    ) -> None:
        Server(book, ValueError("<html>"), KeyError("run_info"))
        book.observe(run_id, "loss", 1.0, None, None)
        eventually(lambda: history(run_id), "it is taken")

        assert said == []

    def test_one_that_is_away_at_the_end_is_not_waited_for_long(
        self, book: TrialBook, said: list[str], run_id: str
    ) -> None:
        server = Server(book, *[broken() for _ in range(10_000)])
        book.observe(run_id, "loss", 1.0, None, None)
        book.mark(run_id, "SUCCEEDED", "")
        eventually(lambda: server.asked > 1, "it is tried")

        assert book.close(0.2)
        assert said
        assert all(line.startswith("MLflow did not take what a trial left") for line in said)
        assert not book._thread.is_alive()

    def test_one_that_never_answers_is_given_up(
        self, book: TrialBook, said: list[str], run_id: str
    ) -> None:
        answers = threading.Event()
        book._store.log_batch = lambda *_: answers.wait(60)  # type: ignore[method-assign]
        book.observe(run_id, "loss", 1.0, None, None)

        assert not book.close(0.2)
        assert said == ["MLflow does not answer: it has not got everything about the trials."]
        answers.set()

    def test_with_a_dead_server_nobody_waits(
        self, monkeypatch: pytest.MonkeyPatch, said: list[str], run_id: str
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        book = TrialBook(said.append)
        book.observe(run_id, "loss", 1.0, None, None)
        book.mark(run_id, "SUCCEEDED", "")
        book.close(2)

        assert said
        eventually(lambda: not book._thread.is_alive(), "its thread ends")


def test_unsettled_are_those_whose_end_nobody_has_written(tuning: Tuning) -> None:
    mlflow = tracking.client()
    going_on, marked, ended, whole = (trial_runs.open_trial(tuning.parent, n) for n in range(4))
    mlflow.set_tag(marked, tracking.STATE_TAG, "SUCCEEDED")
    tracking.close_run(ended, "KILLED")
    mlflow.set_tag(whole, tracking.STATE_TAG, "FAILED")
    tracking.close_run(whole, "FAILED")

    assert trial_runs.unsettled(tuning.parent) == dict.fromkeys(
        (going_on, marked, ended), trial_runs.KIND
    )
