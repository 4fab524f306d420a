"""The run of a lifecycle flow: opened once, closed once, one table for its end."""

from __future__ import annotations

import errno
import logging
import re
import threading
import time
from typing import Any
from unittest.mock import MagicMock

import pytest
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, TerminationSignal
from prefect.states import Completed, Failed
from sqlalchemy.exc import OperationalError

from flows import results, run_context, steps
from flows.run_context import OUTCOMES, RunContext, RunEnd, RunResult
from flows.steps import StopRequestedError
from infra import site
from infra.errors import BadInputError, DiskFullError, ModelyardError, RunFailedError
from infra.home import Home
from registry import flow_kinds
from registry.flow_kinds import FlowKind
from registry.runs import statuses
from registry.tracking import Tracked
from tasks.training.training_request import Training
from tests.flows.contexts import run_context_of

FULL = OSError(errno.ENOSPC, "No space left on device")
LATE = RunFailedError("Too long.", state="TIMED OUT", code="Timeout")
BROKEN = BadInputError("No.", code="Odd")


@pytest.fixture(params=flow_kinds.ALL, ids=lambda kind: str(kind.name))
def kind(request: pytest.FixtureRequest) -> FlowKind:
    found: FlowKind = request.param
    return found


@pytest.fixture
def context(home: Home, kind: FlowKind) -> RunContext:
    return run_context_of(home, kind)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statuses with which MLflow runs were closed."""
    found: list[str] = []
    tracked = Tracked("m", "url", {})
    monkeypatch.setattr(run_context.tracking, "open_run", lambda *_, **__: tracked)
    monkeypatch.setattr(run_context.tracking, "close_run", lambda _, status: found.append(status))
    monkeypatch.setattr(run_context.artifacts, "tie_to_mlflow", lambda *_: None)
    return found


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the ends that the runs' labels show are failures."""
    found: list[bool] = []
    original = RunContext.conclude

    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update_flow_run_labels(self, *_: Any) -> None:
            pass

    def conclude(self: RunContext, *, failed: bool) -> None:
        found.append(failed)
        original(self, failed=failed)

    monkeypatch.setattr(run_context, "prefect_client", lambda **_: Client())
    monkeypatch.setattr(RunContext, "conclude", conclude)
    return found


def _run(context: RunContext, error: BaseException | None, *, opened: bool) -> State[Any]:
    def work() -> RunResult:
        if opened:
            context.open(Training(name="n"), {}, "text")
        if error:
            raise error
        return RunResult({"a": 1}, "Done.", "GoalReached")

    return run_context.run_to_end(context, work)


class TestEveryFlow:
    """What ended a run, as MLflow and the reference's words have it, for each flow alike."""

    def test_a_result(self, context: RunContext, closed: list[str], kind: FlowKind) -> None:
        state = _run(context, None, opened=True)

        assert statuses.word(kind.name, state) == "COMPLETE"
        assert (statuses.detail(state), statuses.message(state)) == ("GoalReached", "Done.")
        assert results.data(state) == {"a": 1}
        assert closed == ["FINISHED"]

    @pytest.mark.parametrize("error", [BROKEN, LATE, FULL], ids=["error", "timeout", "disk"])
    def test_a_refusal_before_the_run_is_opened(
        self, context: RunContext, closed: list[str], kind: FlowKind, error: Exception,
        shown: list[bool],
    ) -> None:  # fmt: skip
        state = _run(context, error, opened=False)

        assert statuses.word(kind.name, state) == "CREATE FAILED"
        assert closed == []
        assert shown == []

    def test_an_error_after_it(
        self, context: RunContext, closed: list[str], kind: FlowKind, shown: list[bool]
    ) -> None:
        state = _run(context, BROKEN, opened=True)

        assert statuses.word(kind.name, state) == kind.failure
        assert results.failure(state) is BROKEN
        assert closed == ["FAILED"]
        assert shown == [True]

    def test_a_full_disk(
        self, context: RunContext, closed: list[str], kind: FlowKind, home: Home
    ) -> None:
        state = _run(context, FULL, opened=True)

        assert statuses.word(kind.name, state) == kind.failure
        error = results.failure(state)
        assert isinstance(error, DiskFullError)
        assert error.code == "DiskFull"
        assert str(home.root) in error.message
        assert closed == ["FAILED"]

    @pytest.mark.parametrize("opened", [True, False])
    def test_a_database_that_is_away(
        self, context: RunContext, closed: list[str], kind: FlowKind, opened: bool
    ) -> None:
        away = OperationalError("SELECT 1", {}, ConnectionError("refused"))

        state = _run(context, away, opened=opened)

        assert statuses.word(kind.name, state) == (kind.failure if opened else "CREATE FAILED")
        error = results.failure(state)
        assert error is not None
        assert error.code == "StackSilent"
        assert "database" in error.message
        assert error.hint
        assert closed == (["FAILED"] if opened else [])

    def test_a_time_limit(self, context: RunContext, closed: list[str], kind: FlowKind) -> None:
        state = _run(context, LATE, opened=True)

        assert statuses.word(kind.name, state) == "TIMED OUT"
        assert closed == ["FAILED"]

    @pytest.mark.parametrize(
        "error", [StopRequestedError({"best": 1}), TerminationSignal(15), KeyboardInterrupt()],
        ids=["stop", "signal", "ctrl-c"],
    )  # fmt: skip
    def test_a_stop(
        self, context: RunContext, closed: list[str], kind: FlowKind, error: BaseException,
        monkeypatch: pytest.MonkeyPatch, shown: list[bool],
    ) -> None:  # fmt: skip
        monkeypatch.setattr(steps, "stop_requested", lambda _: True)

        state = _run(context, error, opened=True)

        assert statuses.word(kind.name, state) == "STOPPED"
        assert (state.message or "").startswith("Stopped")
        kept = error.result if isinstance(error, StopRequestedError) else None
        assert results.data(state) == kept
        assert closed == ["KILLED"]
        assert shown == []

    def test_a_stop_in_a_pod_is_left_to_the_clusters_worker(
        self, context: RunContext, closed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(site, "in_pod", lambda: True)

        with pytest.raises(Abort):
            _run(context, StopRequestedError(), opened=True)
        assert closed == ["KILLED"]

    def test_a_signal_that_no_user_asked_for(
        self, context: RunContext, closed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(steps, "stop_requested", lambda _: False)

        with pytest.raises(TerminationSignal):
            _run(context, TerminationSignal(15), opened=True)
        assert closed == ["KILLED"]

    @pytest.mark.parametrize("error", [TerminationSignal(15), SystemExit(1)], ids=repr)
    def test_one_in_a_process_of_a_worker_is_named(
        self, context: RunContext, kind: FlowKind, monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(steps, "stop_requested", lambda _: False)
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", context.flow_run_id)

        state = _run(context, error, opened=False)

        assert (statuses.word(kind.name, state), state.name) == (kind.failure, "Crashed")
        assert "modelyard down" in (state.message or "")

    @pytest.mark.parametrize(
        "error", [ZeroDivisionError(), OSError(errno.EACCES, "Permission denied")], ids=repr
    )
    def test_an_unknown_exception_is_raised(
        self, context: RunContext, closed: list[str], error: Exception
    ) -> None:
        with pytest.raises(type(error)) as raised:
            _run(context, error, opened=True)
        assert raised.value is error
        assert closed == ["FAILED"]


def test_every_end_has_an_outcome() -> None:
    assert set(OUTCOMES) == set(RunEnd)


class TestOneRun:
    @pytest.fixture
    def context(self, home: Home) -> RunContext:
        return run_context_of(home)

    def test_a_failure_to_tie_the_two_runs_closes_the_mlflow_run(
        self, context: RunContext, closed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> None:
            raise ConnectionAbortedError("away")

        monkeypatch.setattr(run_context.artifacts, "tie_to_mlflow", refuse)

        with pytest.raises(ConnectionAbortedError):
            _run(context, None, opened=True)
        assert closed == ["FAILED"]

    def test_callbacks_run_after_the_work_and_before_the_mlflow_run_is_closed(
        self, context: RunContext, closed: list[str], shown: list[bool]
    ) -> None:
        seen: list[Any] = []
        context.closing.callback(lambda: seen.append((list(shown), list(closed))))

        _run(context, BROKEN, opened=True)

        assert seen == [([True], [])]
        assert closed == ["FAILED"]

    def test_a_callback_that_fails_fails_the_run(
        self, context: RunContext, closed: list[str]
    ) -> None:
        def refuse() -> None:
            raise FULL

        context.closing.callback(refuse)

        state = _run(context, None, opened=True)

        assert statuses.word("train", state) == "FAIL TRAIN"
        assert closed == ["FAILED"]

    def test_a_run_without_an_mlflow_run_fails_at_its_own_work_too(
        self, context: RunContext, closed: list[str]
    ) -> None:
        context.open_untracked()

        state = _run(context, BROKEN, opened=False)

        assert statuses.word("pipeline-artifacts-cleanup", state) == "FAIL CLEANUP"
        assert closed == []

    def test_a_label_is_written_once(
        self, context: RunContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[Any] = []
        monkeypatch.setattr(
            run_context,
            "prefect_client",
            lambda **_: Kept() if not written else pytest.fail("again"),
        )

        class Kept:
            def __enter__(self) -> Kept:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def update_flow_run_labels(self, _: Any, labels: Any) -> None:
                written.append(labels)

        context.conclude(failed=True)
        context.conclude(failed=True)

        assert written == [{"modelyard.concluding": "1 failed"}]


@pytest.mark.parametrize(
    ("opened", "tags", "written"),
    [
        (False, ["mine"], [["mine", "no-mlflow-run"]]),  # a call, which has no deployment
        (False, ["mine", "no-mlflow-run"], []),
        (True, ["mine", "no-mlflow-run"], [["mine", "mlflow-experiment:7"]]),
    ],
)
def test_a_run_is_tagged_with_its_experiment_or_that_it_has_none(
    home: Home, monkeypatch: pytest.MonkeyPatch, opened: bool, tags: list[str], written: list[Any]
) -> None:
    client = MagicMock()
    client.__enter__.return_value = client
    for module in (run_context, run_context.artifacts):
        monkeypatch.setattr(module, "prefect_client", lambda: client)
    tracked = Tracked("m", "url", {}, "7")
    monkeypatch.setattr(run_context.tracking, "open_run", lambda *_, **__: tracked)
    monkeypatch.setattr(run_context.tracking, "close_run", lambda *_: None)
    monkeypatch.setattr(run_context.artifacts, "create_link_artifact", lambda **_: None)
    context = run_context_of(home, tags=tags)

    _run(context, BROKEN, opened=opened)

    assert [call.kwargs["tags"] for call in client.update_flow_run.call_args_list] == written


def test_a_failed_run_is_labelled_with_the_code_of_its_error(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, str]] = []
    monkeypatch.setattr(RunContext, "_label", lambda _, labels: written.append(labels))
    context = run_context_of(home, attempt=2)

    _run(context, ModelyardError("It is broken.", code="Broken"), opened=False)

    assert written == [{"modelyard.error": "2 Broken"}]


@pytest.mark.parametrize("attempt", [1, 2])
def test_lines_of_a_later_attempt_are_set_apart(
    home: Home, attempt: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("run")
    monkeypatch.setattr(RunContext, "logger", logger)
    context = run_context_of(home, attempt=attempt)
    log = home.runs / context.flow_run_id / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text("epoch 1\n")

    with caplog.at_level("INFO", logger.name):
        context.separate_attempts()

    first, *rest = log.read_text().splitlines()
    assert first == "epoch 1"
    assert rest == caplog.messages
    assert len(rest) == attempt - 1
    for line in rest:
        assert re.fullmatch(r"--- attempt 2, \d{4}-\d\d-\d\d [\d:]{8} \S+ ---", line)


def test_a_failed_state_carries_its_error() -> None:
    error = ModelyardError("It is broken.", "Fix it.", code="Broken")

    state = run_context.failed(error, "CreateFailed")

    assert (state.name, state.message) == (
        "Failed", "[CreateFailed] Broken: It is broken. Fix it."
    )  # fmt: skip
    assert results.failure(state) is error
    assert state.is_failed()


@pytest.mark.parametrize(
    "state", [Completed(data={}), Failed(message="Odd."), Failed(data=ValueError("odd"))]
)
def test_other_states_carry_no_error_of_ours(state: State[Any]) -> None:
    assert results.failure(state) is None


class TestLongWork:
    """What work that asks often is told."""

    def test_it_continues(self, home: Home) -> None:
        run_context_of(home, deadline=time.monotonic() + 60).raise_if_ended()
        run_context_of(home).raise_if_ended()

    def test_a_stop(self, home: Home) -> None:
        context = run_context_of(home)
        context.stop.set()

        with pytest.raises(StopRequestedError):
            context.raise_if_ended()

    def test_a_time_limit(self, home: Home) -> None:
        now = time.monotonic()
        context = run_context_of(home, began=now - 100, deadline=now - 10)

        with pytest.raises(RunFailedError, match=r"exceeded its 1\.5 minutes") as raised:
            context.raise_if_ended()
        assert (raised.value.state, raised.value.code) == ("TIMED OUT", "Timeout")


class TestWatching:
    def test_a_worker_watches_for_cancellation_itself(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "run-id")
        before = threading.active_count()
        with run_context_of(home).watching_for_stop():
            assert threading.active_count() == before

    @pytest.mark.parametrize(
        ("answer", "cancelled"),
        [(State(type="CANCELLING"), True), (State(type="CANCELLED"), True), (None, False)],
        ids=["cancelling", "cancelled", "none"],
    )
    def test_a_call_notices_that_it_is_cancelled(
        self,
        home: Home,
        monkeypatch: pytest.MonkeyPatch,
        answer: State[Any] | None,
        cancelled: bool,
    ) -> None:
        asked: list[str] = []

        class Client:
            def __enter__(self) -> Client:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def read_flow_run(self, flow_run_id: str) -> Any:
                asked.append(flow_run_id)
                if len(asked) == 1:
                    raise ConnectionError("the server restarts")
                return type("Run", (), {"state": answer})

        monkeypatch.setattr(run_context, "_CANCEL_POLL_SECONDS", 0.01)
        monkeypatch.setattr(run_context, "prefect_client", lambda **_: Client())
        context = run_context_of(home, flow_run_id="run-id")

        with context.watching_for_stop():
            if cancelled:
                assert context.stop.wait(30)
            else:
                while len(asked) < 3:
                    context.stop.wait(0.01)

        assert context.stop.is_set() is cancelled
        assert set(asked) == {"run-id"}
