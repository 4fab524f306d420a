"""What a tuning is told, and what is refused before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from infra.errors import BadInputError, StackError
from infra.home import Home
from infra.settings import Settings
from registry import training_templates
from registry.tunings import trial_flows
from tasks import parameters
from tasks.training.training_templates import empty_in_form
from tasks.tuning import tuning_dispatch, tuning_request
from tasks.tuning.tuning_request import Tuning
from tests.tasks.tuning.conftest import LOSS, Given, X
from tuning.completion import TuningLimits
from tuning.trials import Trial, TrialState

_NAMED = {"model": {"name": "m"}}


@pytest.fixture
def check(tuning: Given, home: Home, settings: Settings) -> Callable[..., None]:
    def checked(**changes: Any) -> None:
        tuning_request.check(tuning(**changes), home, settings)

    return checked


def _provided(*parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "algorithm": {"provided": "gradient-boosting"},
        "hyperparameters": {"target": "species"},
        "datasets": [{"name": "train", "uri": "TMP/algorithm"}],
        "parameters": parameters,
        "metrics": [],
        "objective": {"metric": "validation_loss", "direction": "minimize"},
        **more,
    }


def _of(name: str, type_: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


_MANY = {f"k{number}": number for number in range(100)}
_LONG = [_of(f"x{number}", "categorical", values=["", "y" * 3900, "z"]) for number in range(26)]


class TestCheck:
    @pytest.mark.parametrize(
        "change",
        [
            {},
            {"strategy": "grid", "parameters": [{**X, "step": 0.5}], "max_trials": None},
            {"strategy": "grid", "parameters": [{**X, "step": 0.5}], "parallel_trials": 3},
            {"objective": [LOSS]},
            {"objective": {**LOSS, "goal": 0.1, "use": "last"}},
            {"max_trials": None, "max_minutes": 5},
            {"max_trials": None, "parameters": [_of("x", "categorical", values=["a", "b"])]},
            {"max_failed_trials": 0},
            {"max_trials": 4, "max_failed_trials": 4, "parallel_trials": 4},
            {"early_stopping": {"rule": "hyperband"}, "seed": 2**63 - 1},
            {"hyperparameters": {"y": 1, "epochs": 3}, "trial_max_minutes": 0.5},
            {"metrics": [{"name": "loss"}, {"name": "size"}],
             "constraints": [{"metric": "size", "max": 3}]},
            {"parameters": [{**X, "name": f"x{number}"} for number in range(100)]},
            {"parameters": [_of("a-b", "int", min=1, max=2), _of("a_b", "int", min=1, max=2)]},
            {"dispatch": "pool", "warm_start": "an earlier one"},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_is_right(self, check: Callable[..., None], change: dict[str, Any]) -> None:
        check(**change)

    @pytest.mark.parametrize(
        ("change", "code", "told"),
        [
            ({"parameters": []}, "ParametersMissing", "no parameters"),
            ({"parameters": [{**X, "max": -1}]}, "ParameterRangeEmpty", "'x'"),
            ({"parallel_trials": 5}, "LimitAboveMaxTrials", "parallel_trials (5)"),
            ({"max_failed_trials": 5}, "LimitAboveMaxTrials", "max_failed_trials (5)"),
            ({"max_trials": None}, "MaxTrialsMissing", "infinite"),
            ({"max_trials": None, "max_failed_trials": 3}, "MaxTrialsMissing", "infinite"),
            (
                {"max_trials": None, "parameters": [_of("n", "int", min=1, max=10**9)]},
                "MaxTrialsMissing", "infinite",
            ),
            ({"hyperparameters": {"x": 1}}, "ParameterFixed", "'x'"),
            ({"hyperparameters": {"X": 1}}, "ParameterFixed", "'X'"),
            (
                {"hyperparameters": {"a-b": 1}, "parameters": [{**X, "name": "a.b"}]},
                "ParameterFixed", "'a-b'",
            ),
            ({"parameters": [X, {**X, "name": "X"}]}, "ParameterVariableTwice", "EM_HP_X"),
            ({"parameters": [X, X]}, "ParameterTwice", "'x'"),
            (
                {
                    "early_stopping": {},
                    "metrics": [{"name": "loss"}, {"name": "f1"}],
                    "objective": [LOSS, {"metric": "f1", "direction": "maximize"}],
                },
                "EarlyStoppingOfSeveral", "several",
            ),
            ({"trial_max_minutes": 0}, "MaxMinutesInvalid", "`trial_max_minutes`: 0"),
            ({"trial_max_minutes": -1}, "MaxMinutesInvalid", "`trial_max_minutes`: -1"),
            ({"trial_max_minutes": float("nan")}, "MaxMinutesInvalid", "`trial_max_minutes`: nan"),
            ({"trial_max_minutes": float("inf")}, "MaxMinutesInvalid", "`trial_max_minutes`: inf"),
            ({"max_minutes": 0}, "MaxMinutesInvalid", "`max_minutes`: 0"),
            ({"warm_start": " x"}, "WarmStartInvalid", "' x'"),
            ({"warm_start": "a\0b"}, "TextInvalid", "warm_start"),
            ({"objective": []}, "ObjectiveMissing", "no objective"),
            ({"objective": "loss"}, "ObjectiveInvalid", "metric and its direction"),
            ({"objective": 3}, "ObjectiveInvalid", "metric and its direction"),
            ({"objective": {**LOSS, "metric": "f1"}}, "ObjectiveUnknown", "'f1'"),
            ({"objective": [LOSS, LOSS]}, "ObjectiveTwice", "'loss'"),
            ({"objective": {**LOSS, "goal": "low"}}, "GoalInvalid", "loss"),
            ({"constraints": [{"metric": "size", "max": 3}]}, "ConstraintUnknown", "'size'"),
            (
                {"parameters": [_of("x", "categorical", values=["a", "b\0"])]},
                "TextInvalid", "parameters[0].values[1]",
            ),
            (
                {"parameters": [_of("x", "categorical", values=["\ud800"])]},
                "TextInvalid", "parameters[0].values[0]",
            ),
            ({"hyperparameters": {"y": "\0"}}, "TextInvalid", "hyperparameters.y"),
            ({"hyperparameters": _MANY}, "HyperparametersTooMany", "101"),
            ({"parameters": _LONG}, "HyperparametersTooLong", "100000"),
            ({"parameters": [{**X, "name": "a b"}]}, "ParameterNameInvalid", "'a b'"),
            ({"metrics": [{"name": "loss", "pattern": "("}]}, "MetricPatternInvalid", "loss"),
            ({"max_trials": 0}, "ParameterInvalid", "max_trials"),
            ({"max_trials": 2.5}, "ParameterInvalid", "max_trials"),
            ({"parallel_trials": 257, "max_trials": 500}, "ParameterInvalid", "parallel_trials"),
            ({"seed": -1}, "ParameterInvalid", "seed"),
            ({"strategy": "guess"}, "ParameterInvalid", "strategy"),
            ({"early_stopping": {"min_trials": 0}}, "ParameterInvalid", "min_trials"),
            ({"tries": 3}, "ParameterUnknown", "tries"),
            ({"parameters": [{**X, "max": 10**400}]}, "NumberTooLarge", "400 digits"),
            ({"model": {"name": "a/b"}}, "ModelNameInvalid", "model.name"),
            ({"objective": [LOSS, {**LOSS, "metric": "s"}], **_NAMED}, "ModelOfSeveral", "name"),
            (
                {"algorithm": {"uri": "TMP/algorithm", "entry_point": "gone.py"}},
                "EntryPointMissing", "gone.py",
            ),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_is_wrong(
        self, check: Callable[..., None], change: dict[str, Any], code: str, told: str
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            check(**change)

        assert raised.value.code == code
        assert told in raised.value.message
        assert raised.value.hint

    def test_a_time_for_an_endless_grid_is_enough(self, check: Callable[..., None]) -> None:
        check(strategy="grid", parameters=[{**X, "step": 0.25}], max_trials=None)


class TestProvided:
    """A provided algorithm's declaration says which values can be tried."""

    @pytest.mark.parametrize(
        "change",
        [
            _provided(_of("iterations", "int", min=1, max=100)),
            _provided(_of("learning_rate", "double", min=0.001, max=1, log=True)),
            _provided(_of("loss", "categorical", values=["squared_error", "poisson"])),
            _provided(
                _of("iterations", "double", min=1, max=9, step=2), strategy="grid"
            ),  # each of them is a whole number
        ],
        ids=str,
    )
    def test_what_is_right(self, check: Callable[..., None], change: dict[str, Any]) -> None:
        check(**change)

    @pytest.mark.parametrize(
        ("change", "code", "told"),
        [
            (
                _provided(_of("iterations", "int", min=0, max=100)),
                "HyperparameterOutOfRange", "'iterations'",
            ),
            (
                _provided(_of("learning_rate", "double", min=0.1, max=2)),
                "HyperparameterOutOfRange", "'learning_rate'",
            ),
            (
                _provided(
                    _of("iterations", "int", min=1, max=2),
                    _of("loss", "categorical", values=["squared_error", "none", "poisson"]),
                ),
                "HyperparameterOutOfRange", "'none'",
            ),
            (
                _provided(_of("iterations", "double", min=1, max=100)),
                "HyperparameterTypeWrong", "'iterations'",
            ),
            (
                _provided(_of("iterations", "double", min=1, max=100, step=1.5), strategy="grid"),
                "HyperparameterTypeWrong", "'iterations'",
            ),
            (_provided(_of("depth", "int", min=1, max=3)), "HyperparameterUnknown", "'depth'"),
            (
                _provided(_of("iterations", "int", min=1, max=3), objective=LOSS),
                "ObjectiveUnknown", "'loss'",
            ),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_is_wrong(
        self, check: Callable[..., None], change: dict[str, Any], code: str, told: str
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            check(**change)

        assert raised.value.code == code
        assert told in raised.value.message


class TestTrials:
    def test_a_trial_is_the_training_with_its_point(self, tuning: Given) -> None:
        asked = tuning(
            name="n", template="t", hyperparameters={"y": 1}, max_minutes=9, trial_max_minutes=2,
            experiment="e", logs={"stream": False}, model={"name": "m"},
        )  # fmt: skip

        found = asked.training({"x": 0.5})

        assert found.hyperparameters == {"y": 1, "x": 0.5}
        assert (found.name, found.template, found.max_minutes) == ("", "", 2)
        assert (found.experiment, found.logs, found.metrics) == ("e", asked.logs, asked.metrics)
        assert found.model.name == ""
        assert asked.training({}).hyperparameters == {"y": 1}

    @pytest.mark.parametrize(
        ("uri", "own"),
        [
            ("", ""),
            ("/data/out", "/data/out/trial-7"),
            ("/data/out/", "/data/out/trial-7"),
            ("s3://bucket/key", "s3://bucket/key/trial-7"),
            ("obs://host/container/", "obs://host/container/trial-7"),
        ],
    )
    def test_what_it_writes_is_in_a_place_of_its_own(
        self, tuning: Given, uri: str, own: str
    ) -> None:
        shared = tuning(
            hyperparameters={"y": 1}, output_uri=uri, checkpoint_uri=uri,
            checkpoint_input_uri="/begin", datasets=[{"name": "d", "uri": "/data"}],
        ).training({})  # fmt: skip

        found = tuning_request.of_trial(
            shared, Trial(7, {"x": 0.5}, TrialState.CREATED), "trial-7"
        )

        assert (found.output_uri, found.checkpoint_uri) == (own, own)
        assert (found.checkpoint_input_uri, found.datasets) == ("/begin", shared.datasets)
        assert found.hyperparameters == {"y": 1, "x": 0.5}
        assert shared.hyperparameters == {"y": 1}


class TestFill:
    @pytest.fixture
    def template(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        found: dict[str, Any] = {
            "hyperparameters": {"x": 0.9, "epochs": 3},
            "max_minutes": 5,
            "experiment": "tuned",
        }
        monkeypatch.setattr(training_templates, "parameters", lambda _: found)
        return found

    def test_a_templates_time_is_each_trials(self, template: dict[str, Any]) -> None:
        found = tuning_request.fill({"template": "t"}, None)

        assert found["trial_max_minutes"] == 5
        assert "max_minutes" not in found

    def test_ones_own_times_come_first(self, template: dict[str, Any]) -> None:
        own = {"template": "t", "max_minutes": 60, "trial_max_minutes": 1}

        assert {**tuning_request.fill(own, None), **own} == tuning_request.fill(own, None)

    def test_what_is_tuned_has_no_fixed_value_of_the_template(
        self, template: dict[str, Any]
    ) -> None:
        found = tuning_request.fill({"template": "t", "parameters": [X]}, None)

        assert found["hyperparameters"] == {"epochs": 3}
        assert template["hyperparameters"] == {"x": 0.9, "epochs": 3}

    def test_a_fixed_value_of_ones_own_is_kept_to_be_refused(
        self, template: dict[str, Any]
    ) -> None:
        own = {"template": "t", "parameters": [X], "hyperparameters": {"x": 1}}

        assert tuning_request.fill(own, None)["hyperparameters"] == {"x": 1, "epochs": 3}

    def test_a_form_gives_every_field(self, template: dict[str, Any]) -> None:
        form = {**Tuning().model_dump(mode="json"), "template": "t", "parameters": [X]}
        form["experiment"] = None  # which is empty in a form

        found = tuning_request.fill(form, empty_in_form(Tuning))

        assert found["hyperparameters"] == {"epochs": 3}
        assert (found["experiment"], found["trial_max_minutes"]) == ("tuned", 5)

    def test_without_a_template_nothing_changes(self) -> None:
        given = {"parameters": [X], "hyperparameters": {"x": 1}}

        assert tuning_request.fill(given, None) == given

    @pytest.mark.parametrize(
        "given", [{"parameters": 5}, {"parameters": [5]}, {"hyperparameters": 5}], ids=str
    )
    def test_nonsense_is_left_to_be_refused(
        self, template: dict[str, Any], given: dict[str, Any]
    ) -> None:
        found = tuning_request.fill({"template": "t", **given}, None)

        with pytest.raises(BadInputError):
            parameters.read(Tuning, found)


class TestLimits:
    def test_they_are_read_of_a_runs_parameters(self) -> None:
        asked = {"max_trials": 3, "parallel_trials": 2, "objective": "nonsense", "name": None}

        assert tuning_request.limits(asked) == TuningLimits(3, None, 2)
        assert tuning_request.limits({}) == TuningLimits(None, None, 1)
        assert tuning_request.limits({"max_trials": None}) == TuningLimits(None, None, 1)

    @pytest.mark.parametrize("asked", [{"max_trials": "many"}, {"parallel_trials": 0}], ids=str)
    def test_what_makes_no_sense_is_refused(self, asked: dict[str, Any]) -> None:
        with pytest.raises(BadInputError):
            tuning_request.limits(asked)

    def test_in_words(self) -> None:
        describe = tuning_request.describe_limits
        assert describe(TuningLimits(3, None, 2)) == "max_trials 3, parallel_trials 2"
        assert describe(TuningLimits(None, 0, 1)) == "max_failed_trials 0, parallel_trials 1"


class TestDispatch:
    @pytest.fixture
    def pool(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
        return lambda kind: monkeypatch.setattr(trial_flows, "pool_type", lambda: kind)

    @pytest.mark.parametrize(
        ("asked", "kind", "found"),
        [
            ("auto", None, "inline"), ("auto", "process", "inline"),
            ("auto", "modelyard-kubernetes", "pool"), ("inline", "kubernetes", "inline"),
            ("pool", "process", "pool"),
        ],
    )  # fmt: skip
    def test_where_trials_run(
        self, tuning: Given, pool: Callable[[str | None], None],
        asked: str, kind: str | None, found: str,
    ) -> None:  # fmt: skip
        pool(kind)

        assert tuning_dispatch.resolved(tuning(dispatch=asked)) == found
        tuning_dispatch.check(tuning(dispatch=asked))

    def test_a_pool_that_is_not_there(
        self, tuning: Given, pool: Callable[[str | None], None]
    ) -> None:
        pool(None)
        with pytest.raises(StackError) as raised:
            tuning_dispatch.check(tuning(dispatch="pool"))

        assert raised.value.code == "PoolMissing"

    @pytest.mark.parametrize(
        ("parallel", "resources"),
        [(17, {}), (9, {"nodes": 2}), (3, {"nodes": 3, "processes_per_node": 2})],
    )
    def test_more_processes_than_the_machine_takes(
        self, tuning: Given, pool: Callable[[str | None], None],
        monkeypatch: pytest.MonkeyPatch, parallel: int, resources: dict[str, int],
    ) -> None:  # fmt: skip
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        pool("process")
        asked = tuning(parallel_trials=parallel, max_trials=20, resources=resources)
        with pytest.raises(BadInputError) as raised:
            tuning_dispatch.check(asked)

        assert raised.value.code == "ParallelTrialsTooMany"
        tuning_dispatch.check(asked.model_copy(update={"parallel_trials": parallel - 1}))
        pool("kubernetes")
        tuning_dispatch.check(asked)
