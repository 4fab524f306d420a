"""The flow of a tuning, without the servers that it talks to."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flows import results, run_context, tuning
from flows.run_context import RunContext, RunResult
from flows.steps import StopRequestedError
from infra.errors import BadInputError, DiskFullError, RunFailedError, StackError
from infra.home import Home
from registry import flow_kinds, training_templates
from registry.runs import runs, statuses
from registry.tracking import Tracked
from registry.tunings import trial_flows
from registry.tunings.tuning_views import BestTrialView, TuningResultView
from tasks.training.training_request import ModelRegistration
from tasks.trials import inputs
from tasks.tuning.tuning_loop import Interruption
from tasks.tuning.tuning_request import Tuning
from tests.flows.contexts import run_context_of
from tuning.completion import TuningOutcome
from tuning.space import Parameter
from tuning.trials import Trial, TrialState

X = {"name": "x", "type": "double", "min": 0, "max": 1}
LOSS = {"metric": "loss", "direction": "minimize"}


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the run's log says."""
    kept: list[str] = []
    logger = logging.getLogger("tests.tuning")
    monkeypatch.setattr(logger, "info", lambda message, *args: kept.append(message % args))
    monkeypatch.setattr(run_context, "get_run_logger", lambda: logger)
    return kept


@pytest.fixture
def context(home: Home) -> RunContext:
    made = run_context_of(home, flow_kinds.TUNE, name="name")
    (home.runs / made.flow_run_id).mkdir(parents=True)
    return made


@pytest.fixture
def request_() -> Tuning:
    return Tuning(parameters=[X], objective=LOSS, metrics=[{"name": "loss"}], max_trials=3)


class TestTune:
    """Whatever happens, the MLflow run is closed, and the state says what it was."""

    @pytest.fixture
    def closed(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        tracked = Tracked("m", "url", {})
        monkeypatch.setattr(tuning.rows, "of", lambda _: [])
        monkeypatch.setattr(run_context.artifacts, "tie_to_mlflow", lambda *_: None)
        monkeypatch.setattr(RunContext, "conclude", lambda _, *, failed: None)
        monkeypatch.setattr(RunContext, "report_error", lambda *_: None)
        monkeypatch.setattr(tuning.tunings, "mark_objectives", lambda *_: None)
        tracking = run_context.tracking
        monkeypatch.setattr(tracking, "open_run", lambda *_, **__: tracked)
        monkeypatch.setattr(tracking, "close_run", lambda *closed: found.append(closed))
        return found

    @pytest.mark.parametrize(
        ("problem", "code"),
        [
            (RunFailedError("No.", state="x", code="Odd"), "Odd"),
            (DiskFullError("Full."), "DiskFull"),
            (OSError(errno.ENOSPC, "No space left on device"), "DiskFull"),
        ],
    )
    def test_a_failure_is_told(
        self, context: RunContext, request_: Tuning, closed: list[Any],
        monkeypatch: pytest.MonkeyPatch, problem: Exception, code: str,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(tuning, "_conduct", _raising(problem))

        state = _tune(context, request_)

        assert state.name == "Failed"
        assert statuses.word("tune", state) == "FAIL HYPERPARAMETER TUNING"
        error = results.failure(state)
        assert error is not None
        assert error.code == code
        assert closed == [("m", "FAILED")]

    @pytest.mark.parametrize(
        ("problem", "status"),
        [
            (OSError(errno.EACCES, "Permission denied"), "FAILED"),
            (ValueError("surprise"), "FAILED"),
        ],
    )
    def test_anything_else_is_raised(
        self, context: RunContext, request_: Tuning, closed: list[Any],
        monkeypatch: pytest.MonkeyPatch, problem: BaseException, status: str,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(tuning, "_conduct", _raising(problem))

        with pytest.raises(type(problem)):
            _tune(context, request_)
        assert closed == [("m", status)]

    def test_also_where_its_objectives_cannot_be_written(
        self, context: RunContext, request_: Tuning, closed: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(
            tuning.tunings, "mark_objectives", _raising(ConnectionAbortedError("away"))
        )

        with pytest.raises(ConnectionAbortedError):
            _tune(context, request_)
        assert closed == [("m", "FAILED")]

    def test_without_a_seed_it_has_one_of_its_own_after_a_restart_too(
        self, context: RunContext, request_: Tuning, closed: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        points = []

        def conduct(*given: Any) -> Any:
            points.append(given[3].ask(0))
            return RunResult({}, "")

        monkeypatch.setattr(tuning, "_conduct", conduct)
        for _ in range(2):
            _tune(context, request_)
        assert points[0] == points[1]

    def test_a_restart_learns_of_an_earlier_tuning_what_it_did_at_first(
        self, context: RunContext, request_: Tuning, closed: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        asked = []
        first = Trial(0, {"x": 0.5}, TrialState.SUCCEEDED, created=123.0)
        monkeypatch.setattr(tuning.rows, "of", lambda _: [first])
        monkeypatch.setattr(
            tuning.tuning_warm_start, "trials_of", lambda *given: asked.append(given) or []
        )
        monkeypatch.setattr(tuning, "_conduct", lambda *_: RunResult({}, ""))

        _tune(context, request_.model_copy(update={"warm_start": "w"}))
        assert asked == [("w", 123.0)]

    def test_an_earlier_tuning_that_left_nothing_to_try(
        self, context: RunContext, request_: Tuning, closed: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        values = [1, 2]
        tried = [
            Trial(number, {"x": value}, TrialState.SUCCEEDED, values=(0.5,), created=1.0)
            for number, value in enumerate(values)
        ]
        monkeypatch.setattr(tuning.tuning_warm_start, "trials_of", lambda *_: tried)
        space = [Parameter(name="x", type="discrete", values=values)]

        state = _tune(
            context, request_.model_copy(update={"warm_start": "w", "parameters": space})
        )
        assert statuses.word("tune", state) == "CREATE FAILED"
        assert "WarmStartComplete" in state.message
        assert closed == []


def _tune(context: RunContext, request: Tuning) -> Any:
    return run_context.run_to_end(context, lambda: tuning.tune.work(context, request))


def _raising(problem: BaseException) -> Callable[..., Any]:
    def do(*_: Any, **__: Any) -> Any:
        raise problem

    return do


def _best(number: int) -> BestTrialView:
    return BestTrialView(number=number, parameters={}, value=0.25, mlflow_run_id=None)


class TestConclude:
    def _concluded(
        self, ended: Any, context: RunContext, request_: Tuning, **trials: Any
    ) -> RunResult:
        tuner: Any = SimpleNamespace(trials=trials)
        return tuning._conclude(context, request_, Tracked("m", "", {}), tuner, ended)

    @pytest.mark.parametrize(
        ("best", "front", "told"),
        [(_best(7), None, "Best: trial 7 with 0.25"), (None, None, "Best: none"),
         (None, [3], "Best: trial 3"), (None, [2, 1], "Best: trials 2, 1"),
         (None, range(7), "Best: trials 0, 1, 2, 3, 4 and 2 more")],
    )  # fmt: skip
    @pytest.mark.parametrize(
        "ending",
        [TuningOutcome.GOAL_REACHED, TuningOutcome.MAX_TRIALS_REACHED,
         TuningOutcome.SUGGESTION_END_REACHED],
    )  # fmt: skip
    def test_a_good_end_has_a_result(
        self, context: RunContext, request_: Tuning, monkeypatch: pytest.MonkeyPatch,
        ending: TuningOutcome, best: Any, front: Any, told: str,
    ) -> None:  # fmt: skip
        several = None if front is None else [_best(number) for number in front]
        result = TuningResultView(mlflow_run_id="m", best=best, front=several, trials=[])
        monkeypatch.setattr(tuning.tunings, "result", lambda *_: result)

        found = self._concluded(ending, context, request_)

        assert (found.value, found.detail) == (result.to_json(), ending.value)
        assert found.message.startswith(told)

    @pytest.mark.parametrize(
        ("asked", "made", "told"),
        [
            ({}, None, "Best: trial 7 with 0.25"),
            ({"register": "always"}, None, "Best: trial 7 with 0.25"),
            ({"name": "m", "register": "never"}, None, "Best: trial 7 with 0.25"),
            ({"name": "m"}, "models:/m/3", "Best: trial 7 with 0.25. Model: models:/m/3"),
            ({"name": "m"}, None, "Best: trial 7 with 0.25. Model: none"),
        ],
    )
    def test_the_best_is_registered_if_a_model_is_named(
        self, context: RunContext, request_: Tuning, monkeypatch: pytest.MonkeyPatch,
        asked: dict[str, str], made: str | None, told: str,
    ) -> None:  # fmt: skip
        result = TuningResultView(mlflow_run_id="m", best=_best(7), trials=[])
        monkeypatch.setattr(tuning.tunings, "result", lambda *_: result)
        registered: list[Any] = []
        warned: list[str] = []

        def register(*given: Any) -> str | None:
            registered.append(given)
            return made

        monkeypatch.setattr(tuning.model_creation, "register_best", register)
        monkeypatch.setattr(
            context.logger, "warning", lambda line, *given: warned.append(line % given)
        )
        request = request_.model_copy(update={"model": ModelRegistration(**asked)})

        found = self._concluded(TuningOutcome.GOAL_REACHED, context, request)

        assert found.message == told
        assert found.value["model_uri"] == (made if "Model" in told else None)
        given = ("m", context.created, context.flow_run_id, result)
        assert registered == ([given] if "Model" in told else [])
        assert len(warned) == ("Model: none" in told)

    def test_stopped_it_has_its_trials_and_the_best_of_them(
        self, context: RunContext, request_: Tuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = TuningResultView(mlflow_run_id="m", best=_best(1), trials=[])
        monkeypatch.setattr(tuning.tunings, "result", lambda *_, over: result)

        with pytest.raises(StopRequestedError) as raised:
            self._concluded(Interruption.STOPPED, context, request_)

        assert raised.value.result == result.to_json()

    def test_out_of_time(self, context: RunContext, request_: Tuning) -> None:
        late = request_.model_copy(update={"max_minutes": 5.0})

        with pytest.raises(RunFailedError, match="for its 5 minutes") as raised:
            self._concluded(Interruption.TIMED_OUT, context, late)

        assert (raised.value.code, raised.value.state) == ("Timeout", "TIMED OUT")

    def test_too_many_failures_are_counted_and_the_last_is_told(
        self, context: RunContext, request_: Tuning
    ) -> None:
        rows = [
            ("SUCCEEDED", ""), ("FAILED", "ScriptFailed: It broke."), ("KILLED", "odd"),
            ("METRICS_UNAVAILABLE", "It reported no loss."), ("EARLY_STOPPED", ""),
        ]  # fmt: skip
        trials = {
            str(number): Trial(number, {}, TrialState(state), reason=reason)
            for number, (state, reason) in enumerate(rows)
        }

        with pytest.raises(RunFailedError) as raised:
            self._concluded(TuningOutcome.FAILED, context, request_, **trials)

        assert raised.value.state == "FAIL HYPERPARAMETER TUNING"
        assert "2 trials failed." in raised.value.message
        assert "trial 3: It reported no loss." in raised.value.message


class TestLauncher:
    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
        """The launchers that were made; a second close is counted, too."""
        found: list[SimpleNamespace] = []

        def make(trial_context: Any, emit: Any) -> Any:
            one = SimpleNamespace(trial_context=trial_context, emit=emit, closed=0)

            def close() -> None:
                one.closed += 1

            one.close = close
            found.append(one)
            return one

        monkeypatch.setattr(tuning, "InlineLauncher", make)
        monkeypatch.setattr(tuning, "PoolLauncher", make)
        unheard = contextlib.nullcontext(SimpleNamespace(reported=None))
        monkeypatch.setattr(tuning.run_monitor, "monitored", lambda *_: unheard)
        monkeypatch.setattr(trial_flows, "pool_type", lambda: "process")
        return found

    def _launcher(self, request_: Tuning, context: RunContext) -> Any:
        tuner: Any = SimpleNamespace(emit=None)
        return tuning._launcher(context, request_, Tracked("m", "", {}), tuner)

    def test_it_knows_what_is_waited_for(
        self, context: RunContext, made: list[SimpleNamespace]
    ) -> None:
        asked = Tuning(
            parameters=[X], objective=[LOSS, {"metric": "f1", "direction": "maximize"}],
            constraints=[{"metric": "size", "max": 1}], parallel_trials=3,
        )  # fmt: skip
        with self._launcher(asked, context):
            pass

        assert made[0].trial_context.metrics == {"loss", "f1", "size"}
        assert made[0].trial_context.parallel == 3
        assert made[0].trial_context.name == "name"

    def test_whatever_interrupts_it_is_closed_and_nothing_is_left(
        self, context: RunContext, request_: Tuning, made: list[SimpleNamespace],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        root = context.home.runs / context.flow_run_id / "inputs"

        def shared(training: Any, folder: Any, say: Any) -> Any:
            (folder / "algorithm").mkdir(parents=True)
            return training

        monkeypatch.setattr(inputs, "shared", shared)
        with pytest.raises(KeyboardInterrupt), self._launcher(request_, context):
            assert root.exists()
            raise KeyboardInterrupt
        assert made[0].closed == 1
        assert not root.exists()

    def test_what_was_fetched_in_vain_is_removed(
        self, context: RunContext, request_: Tuning, made: list[SimpleNamespace],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        root = context.home.runs / context.flow_run_id / "inputs"

        def shared(_: Any, folder: Any, __: Any) -> Any:
            folder.mkdir(parents=True)
            raise DiskFullError("Full.")

        monkeypatch.setattr(inputs, "shared", shared)
        with pytest.raises(DiskFullError), self._launcher(request_, context):
            pass
        assert made == []
        assert not root.exists()


class TestConduct:
    """What was known before a restart is shown, and counts."""

    @pytest.fixture
    def progress(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        seen = SimpleNamespace(restored=[], changed=[], ended=[], closed=0)

        class TuningProgress:
            def __init__(self, *_: Any) -> None:
                pass

            def restored(self, trials: Any) -> None:
                seen.restored += trials

            def changed(self, trial: Trial) -> None:
                seen.changed.append(trial)

            @contextlib.contextmanager
            def shown(self) -> Iterator[None]:
                yield

            def ended(self, ending: Any) -> None:
                seen.ended.append(ending)

            def close(self) -> None:
                seen.closed += 1

        monkeypatch.setattr(tuning, "TuningProgress", TuningProgress)
        monkeypatch.setattr(RunContext, "conclude", lambda _, *, failed: None)
        monkeypatch.setattr(tuning.rows, "save", lambda *_: None)
        result = TuningResultView(mlflow_run_id="m", best=None, trials=[])
        monkeypatch.setattr(tuning.tunings, "result", lambda *_: result)
        monkeypatch.setattr(tuning.LiveLimits, "followed", lambda _: contextlib.nullcontext())

        @contextlib.contextmanager
        def launcher(*_: Any) -> Iterator[Any]:
            yield SimpleNamespace(
                settle=lambda _: None,
                close=lambda: None,
                stop_timeout_seconds=0,
                stop=lambda _: None,
            )

        monkeypatch.setattr(tuning, "_launcher", launcher)
        return seen

    def test_all_of_them_are_known_before_the_first_change(
        self, context: RunContext, request_: Tuning, progress: Any
    ) -> None:
        before = [
            Trial(0, {"x": 0.1}, TrialState.SUCCEEDED, (0.5,)),
            Trial(1, {"x": 0.2}, TrialState.FAILED),
            Trial(2, {"x": 0.3}, TrialState.RUNNING, started=1.0, losses=1),
        ]
        search = tuning._search(context, request_, 1, 0.0)

        found = tuning._conduct(context, request_, Tracked("m", "", {}), search, before)

        assert found.detail == "MaxTrialsReached"
        assert progress.restored == before
        assert [(one.number, one.state) for one in progress.changed] == [(2, "FAILED")]
        assert progress.ended == [TuningOutcome.MAX_TRIALS_REACHED]
        assert progress.closed == 1

    def test_what_fails_is_closed_as_well(
        self, context: RunContext, request_: Tuning, progress: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(tuning, "_launcher", _raising(DiskFullError("Full.")))

        with pytest.raises(DiskFullError):
            tuning._conduct(
                context,
                request_,
                Tracked("m", "", {}),
                tuning._search(context, request_, 1, 0.0),
                [],
            )
        assert progress.closed == 1


class TestChanged:
    """What may be changed while a tuning runs."""

    @pytest.fixture(autouse=True)
    def _pool(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trial_flows, "pool_type", lambda: "process")

    def test_limits_that_work(self, request_: Tuning) -> None:
        names = {"max_trials", "max_failed_trials", "parallel_trials"}
        assert set(tuning.tune.spec.changeable) == names
        tuning.tune.spec.check_changed(request_)

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"parallel_trials": 4}, "LimitAboveMaxTrials"),
            ({"max_trials": None}, "MaxTrialsMissing"),
            ({"parallel_trials": 250, "max_trials": 300}, "ParallelTrialsTooMany"),
            ({"parameters": [{**X, "min": None}]}, "ParameterRangeMissing"),
            ({"parameters": []}, "ParametersMissing"),
        ],
        ids=str,
    )
    def test_limits_that_do_not(self, request_: Tuning, change: dict[str, Any], code: str) -> None:
        asked = Tuning(**{**request_.model_dump(), **change})
        with pytest.raises(BadInputError) as raised:
            tuning.tune.spec.check_changed(asked)

        assert raised.value.code == code

    def test_a_pool_that_is_gone(self, request_: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trial_flows, "pool_type", lambda: None)
        with pytest.raises(StackError):
            tuning.tune.spec.check_changed(request_.model_copy(update={"dispatch": "pool"}))


def test_what_is_given_is_completed_of_a_template_and_names_become_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_templates, "parameters", lambda _: {"max_minutes": 5})
    monkeypatch.setattr(runs, "find", {"earlier": "id-1"}.__getitem__)

    found = tuning.tune.spec.completed({"template": "t", "warm_start": "earlier"}, form=False)

    assert found == {"template": "t", "warm_start": "id-1", "trial_max_minutes": 5}
