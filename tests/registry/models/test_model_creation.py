from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Crashed, Running

from infra.errors import BadInputError, ConflictError, ModelyardError, NotFoundError
from registry import deletion, tracking
from registry.models import model_creation, models
from registry.models.model_views import ModelVersionView
from registry.models.models import ServingSpec, SourceRun
from registry.runs import runs
from registry.runs.run_views import RunDetailView, RunResultView
from registry.tracking import Opening
from registry.tunings import trials, tunings
from tests.registry import model_files
from tests.registry.fake_runs import PrefectClient
from tests.registry.trained import MakeRun
from tests.registry.tuned import Tuning, is_deleted, row

pytestmark = pytest.mark.usefixtures("mlflow")


def code(raised: pytest.ExceptionInfo[ModelyardError]) -> str:
    return raised.value.code


def _result(mlflow_run_id: str) -> RunResultView:
    return RunResultView(mlflow_run_id=mlflow_run_id, model_uri=None, metrics={})


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch, run: MakeRun) -> dict[str, Any]:
    """What Prefect and MLflow tell of the run; the test may change it."""
    left = run()
    told = {
        "id": left.flow_run_id, "name": left.name, "flow": "train", "state": "COMPLETE",
        "mlflow_run_id": left.id, "result": _result(left.id),
    }  # fmt: skip
    monkeypatch.setattr(runs, "show", lambda key: RunDetailView.model_construct(**told))
    return told


def test_the_model_is_called_as_the_run(name: str, prefect: dict[str, Any]) -> None:
    made = model_creation.from_run("key", ServingSpec("scikit-learn"))

    assert made["uri"] == f"models:/{name}/1"
    assert made["flow_run_id"] == prefect["id"]


def test_or_otherwise(name: str, prefect: dict[str, Any]) -> None:
    made = model_creation.from_run("key", ServingSpec("scikit-learn"), name=f"{name}-x")

    assert made["uri"] == f"models:/{name}-x/1"


@pytest.mark.parametrize("state", ["RUNNING", "FAIL TRAIN", "STOPPED", "CREATE REQUESTED"])
def test_only_a_complete_run(state: str, prefect: dict[str, Any]) -> None:
    prefect["state"] = state
    with pytest.raises(ConflictError) as raised:
        model_creation.from_run("key", ServingSpec("scikit-learn"))

    assert code(raised) == "RunNotComplete"


def test_only_a_training(prefect: dict[str, Any]) -> None:
    prefect["flow"] = "batch-inference"
    with pytest.raises(NotFoundError) as raised:
        model_creation.from_run("key", ServingSpec("scikit-learn"))

    assert code(raised) == "RunHasNoModel"


def test_only_one_that_left_a_model(prefect: dict[str, Any]) -> None:
    opening = Opening(str(uuid.uuid4()), "train", "empty", "Default", "", "me", {})
    empty = tracking.open_run(opening, retried=False).run_id
    for result in (_result(empty), None):
        prefect["result"] = result
        with pytest.raises(NotFoundError) as raised:
            model_creation.from_run("key", ServingSpec("scikit-learn"))
        assert code(raised) == "RunHasNoModel"


def test_a_training_has_no_trials(prefect: dict[str, Any]) -> None:
    with pytest.raises(BadInputError) as raised:
        model_creation.from_run("key", ServingSpec("scikit-learn"), trial=0)

    assert code(raised) == "TrialUnused"


def test_the_framework_that_the_run_has_declared(name: str, prefect: dict[str, Any]) -> None:
    run_id = prefect["mlflow_run_id"]
    with pytest.raises(BadInputError) as raised:
        model_creation.from_run("key", ServingSpec())
    assert code(raised) == "FrameworkMissing"

    models.declare_framework(run_id, "scikit-learn", "1.9")
    made = model_creation.from_run("key", ServingSpec("", "", {"threads": 2}))

    assert (made["framework"], made["framework_version"]) == ("scikit-learn", "1.9")
    assert made["parameters"] == {"threads": 2}
    given = model_creation.from_run("key", ServingSpec("sklearn", "2"), name=f"{name}-x")
    assert given["framework_version"] == "2"


def test_of_a_deleted_experiment_nothing_is_made(
    name: str, prefect: dict[str, Any], tmp_path: Path
) -> None:
    opening = Opening(str(uuid.uuid4()), "train", name, f"{name}-gone", "", "me", {})
    opened = tracking.open_run(opening, retried=False)
    model_files.scikit_learn(tmp_path / "model", name)
    tracking.log_files(opened.run_id, tmp_path / "model", "model")
    tracking.client().delete_experiment(opened.experiment_id)
    prefect["mlflow_run_id"], prefect["result"] = opened.run_id, _result(opened.run_id)

    with pytest.raises(ConflictError) as raised:
        model_creation.from_run("key", ServingSpec("scikit-learn"), name=name)

    assert code(raised) == "ExperimentDeleted"
    assert name not in [model["name"] for model in models.list_all()]


class TestBestOfATuning:
    """What a tuning registers when it completes."""

    @pytest.fixture
    def tuning(self, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> Tuning:
        made = Tuning(PrefectClient.installed(monkeypatch), name, tmp_path, Running())
        tunings.mark_objectives(made.run_id, ["loss"])
        return made

    def registered(self, tuning: Tuning, name: str) -> str | None:
        return model_creation.register_best(
            name, datetime.now(UTC), tuning.id, tunings.result(tuning.id, tuning.run_id)
        )

    def test_each_tuning_makes_the_next_version_once(
        self, tuning: Tuning, name: str, tmp_path: Path
    ) -> None:
        models.declare_framework(tuning.trial(0, model=True), "scikit-learn", "1.9")
        tunings.mark_best(tuning.run_id, [0])
        other = Tuning(tuning.prefect, f"{name}-2", tmp_path / "2", Running())
        tunings.mark_objectives(other.run_id, ["loss"])
        in_pool, _ = other.pool_trial(0, model=True)
        tunings.mark_best(other.run_id, [0])

        made = [self.registered(one, f"{name}-m") for one in (tuning, tuning, other, other)]

        assert made == [f"models:/{name}-m/{number}" for number in (1, 1, 2, 2)]
        shown = [tunings.result(one.id, one.run_id).model_uri for one in (tuning, other)]
        assert shown == made[1:3]
        second, first = models.show(f"{name}-m")["versions"]
        assert (first["flow_run_id"], second["flow_run_id"]) == (tuning.id, in_pool)
        assert (first["framework"], second["framework"]) == ("scikit-learn", None)

    def test_without_a_model_there_is_none(self, tuning: Tuning, name: str) -> None:
        assert self.registered(tuning, name) is None  # no trial
        tuning.trial(0)
        tunings.mark_best(tuning.run_id, [0])
        assert self.registered(tuning, name) is None


class TestTuning:
    @pytest.fixture
    def tuning(self, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> Tuning:
        made = Tuning(PrefectClient.installed(monkeypatch), name, tmp_path)
        tunings.mark_objectives(made.run_id, ["loss"])
        return made

    def made(self, tuning: Tuning, **more: Any) -> ModelVersionView:
        return model_creation.from_run(tuning.id, ServingSpec("scikit-learn"), **more)

    def refused(self, tuning: Tuning, **more: Any) -> ModelyardError:
        with pytest.raises(ModelyardError) as raised:
            self.made(tuning, **more)
        assert raised.value.hint
        assert tuning.name not in [model["name"] for model in models.list_all()]
        return raised.value

    def test_it_is_made_of_the_best_trial(self, tuning: Tuning, name: str) -> None:
        tuning.trial(0, model=True)
        best = tuning.trial(1, model=True)
        tunings.mark_best(tuning.run_id, [1])

        version = self.made(tuning)

        assert version["uri"] == f"models:/{name}/1"
        assert version["mlflow_run_id"] == best
        assert version["flow_run_id"] == tuning.id
        assert models.resolve(version["uri"]).source_uri == tuning.origin(best).source
        assert self.made(tuning, name=f"{name}-x")["uri"] == f"models:/{name}-x/1"

    def test_a_trial_in_a_pool_has_a_flow_run_of_its_own(self, tuning: Tuning) -> None:
        in_pool, run_id = tuning.pool_trial(0, model=True)
        tunings.mark_best(tuning.run_id, [0])

        version = self.made(tuning)

        assert (version["mlflow_run_id"], version["flow_run_id"]) == (run_id, in_pool)

    def test_a_trial_by_its_own_run_waits_for_its_tuning(
        self, tuning: Tuning, name: str, tmp_path: Path
    ) -> None:
        going = Tuning(tuning.prefect, f"{name}-going", tmp_path / "going", state=Running())
        in_pool, _ = going.pool_trial(0, model=True)

        with pytest.raises(ConflictError) as raised:
            model_creation.from_run(in_pool, ServingSpec("scikit-learn"), name=name)
        assert code(raised) == "RunNotComplete"
        assert going.name in raised.value.message

    @pytest.mark.parametrize("state", ["SUCCEEDED", "EARLY_STOPPED"])
    def test_or_of_another_trial(self, tuning: Tuning, state: str) -> None:
        other = tuning.trial(0, model=True, state=state)
        tuning.trial(1, model=True)
        tunings.mark_best(tuning.run_id, [1])

        assert self.made(tuning, trial=0)["mlflow_run_id"] == other

    @pytest.mark.parametrize("state", [Running(), Crashed()], ids=lambda state: state.name)
    def test_only_of_a_complete_one(
        self, tuning: Tuning, name: str, tmp_path: Path, state: Any
    ) -> None:
        other = Tuning(tuning.prefect, f"{name}-2", tmp_path, state)
        other.trial(0, model=True)
        tunings.mark_best(other.run_id, [0])

        assert self.refused(other).code == "RunNotComplete"
        assert self.refused(other, trial=0).code == "RunNotComplete"

    def test_without_a_best_trial_there_is_none(self, tuning: Tuning) -> None:
        assert self.refused(tuning).code == "TuningHasNoBest"
        tunings.mark_objectives(tuning.run_id, ["a", "b"])
        assert self.refused(tuning).code == "TuningHasNoBest"

    def test_of_a_front_one_is_chosen(self, tuning: Tuning) -> None:
        left = [tuning.trial(number, model=True, values=(1.0, 2.0)) for number in (0, 1)]
        tunings.mark_objectives(tuning.run_id, ["a", "b"])
        tunings.mark_best(tuning.run_id, [0, 1])

        error = self.refused(tuning)

        assert error.code == "TrialNeeded"
        assert "0, 1" in error.hint
        assert self.made(tuning, trial=1)["mlflow_run_id"] == left[1]

    def test_the_best_may_have_left_none(self, tuning: Tuning) -> None:
        tuning.trial(0)
        tuning.trial(1, state="EARLY_STOPPED")
        trials.save(tuning.id, row(2))

        for best, early in ((0, False), (1, True), (2, False)):
            tunings.mark_best(tuning.run_id, [best])
            error = self.refused(tuning)
            assert error.code == "RunHasNoModel"
            assert ("stopped early" in error.message) is early

    def test_a_trial_that_is_not_there(self, tuning: Tuning) -> None:
        tuning.trial(0, model=True)

        assert self.refused(tuning, trial=1).code == "TrialUnknown"

    @pytest.mark.parametrize(
        ("state", "told"),
        [
            ("FAILED", "FAILED"),
            ("KILLED", "KILLED"),
            ("METRICS_UNAVAILABLE", "METRICS_UNAVAILABLE"),
            ("RUNNING", "KILLED"),  # of a tuning that is over, nothing runs
        ],
    )
    def test_a_trial_that_came_to_nothing(self, tuning: Tuning, state: str, told: str) -> None:
        tuning.trial(0, model=True, state=state)

        error = self.refused(tuning, trial=0)

        assert error.code == "TrialNotObserved"
        assert told in error.message

    @pytest.mark.parametrize("by_its_own_run", [False, True])
    def test_the_tuning_waits_for_who_makes_one(
        self, tuning: Tuning, name: str, monkeypatch: pytest.MonkeyPatch, by_its_own_run: bool
    ) -> None:
        in_pool, run_id = tuning.pool_trial(0, model=True)
        tunings.mark_best(tuning.run_id, [0])
        really, told = models._check_not_removed, list[str]()

        def while_it_deletes(origin: SourceRun) -> None:
            really(origin)
            thread.start()
            thread.join(1)  # longer than a deletion takes that does not wait

        def delete() -> None:
            try:
                deletion.delete("run", tuning.id)
            except ModelyardError as error:
                told.append(error.code)

        thread = threading.Thread(target=delete)
        monkeypatch.setattr(models, "_check_not_removed", while_it_deletes)
        key = in_pool if by_its_own_run else tuning.id
        model_creation.from_run(key, ServingSpec("scikit-learn"), name=name)
        thread.join(30)

        assert told == ["HasModel"]
        assert not is_deleted(run_id)

    def test_where_the_files_went_meanwhile_none_is_made(
        self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = tuning.trial(0, model=True)
        tunings.mark_best(tuning.run_id, [0])
        show = runs.show

        def showing(key: str) -> RunDetailView:
            shown = show(key)
            tracking.delete_run(run_id)
            return shown

        monkeypatch.setattr(runs, "show", showing)

        assert self.refused(tuning).code == "RunHasNoModel"
