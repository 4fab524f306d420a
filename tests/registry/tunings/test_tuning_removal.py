"""The deletion of tunings with all that their trials have left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Cancelling, Crashed, Running, Scheduled

from infra import home as homes
from infra.errors import ConflictError
from registry import deletion, history, tracking
from registry.models import model_versions, models
from registry.models.models import ServingSpec
from registry.runs import run_removal
from registry.tunings import trials
from tests.registry.fake_runs import PrefectClient, killed
from tests.registry.server import MlflowServer
from tests.registry.tuned import Tuning, files, is_deleted, row

MakeTuning = Callable[..., Tuning]


@pytest.fixture
def prefect(mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    return PrefectClient.installed(monkeypatch)


@pytest.fixture
def make(prefect: PrefectClient, tmp_path: Path) -> MakeTuning:
    def made(name: str, state: State[Any] | None = None) -> Tuning:
        return Tuning(prefect, name, tmp_path / name, state)

    return made


def folder(flow_run_id: str) -> Path:
    return homes.current().runs / flow_run_id


def refused(key: str) -> ConflictError:
    with pytest.raises(ConflictError) as raised:
        deletion.delete("run", key)
    return raised.value


def test_everything_of_it_goes_and_nothing_else(
    make: MakeTuning, name: str, prefect: PrefectClient, mlflow: MlflowServer
) -> None:
    tuning, other = make(name), make(f"{name}-2")
    beside = [tuning.trial(number) for number in range(3)]
    in_pool, in_pool_run = tuning.pool_trial(3)
    kept, (kept_pool, kept_pool_run) = other.trial(0), other.pool_trial(1)
    training = prefect.add("train", "another")
    assert files(beside[0], mlflow) == {"log"}

    told = deletion.delete("run", tuning.id)

    assert told == {"id": tuning.id, "name": name, "deleted": True}
    gone = [*beside, in_pool_run, tuning.run_id]
    assert all(is_deleted(run_id) for run_id in gone)
    assert [files(run_id, mlflow) for run_id in gone] == [set()] * 5
    assert {str(run_id) for run_id in prefect.runs} == {other.id, kept_pool, training}
    assert not folder(tuning.id).exists()
    assert not folder(in_pool).exists()
    assert trials.of(tuning.id) == []
    assert history.of("run", tuning.id)[-1]["verb"] == "delete"
    assert not any(map(is_deleted, (kept, kept_pool_run, other.run_id)))
    assert files(kept, mlflow) == {"log"}
    assert folder(kept_pool).exists()
    assert (other.folder / "trials" / "0").exists()
    assert len(trials.of(other.id)) == 2


@pytest.mark.parametrize("state", [Running(), Scheduled(), Cancelling()], ids=lambda s: s.name)
def test_it_stays_while_it_goes_on(make: MakeTuning, name: str, state: State[Any]) -> None:
    tuning = make(name, state)
    run_id = tuning.trial(0)

    assert refused(tuning.id).code == "RunGoesOn"
    assert not is_deleted(run_id)


def test_it_stays_while_a_trial_goes_on_in_a_pool(make: MakeTuning, name: str) -> None:
    """As where the tuning itself was killed."""
    tuning = make(name, Crashed())
    going_on, _ = tuning.pool_trial(0, state="RUNNING", flow_state=Running())
    tuning.pool_trial(1)

    error = refused(tuning.id)

    assert error.code == "TrialGoesOn"
    assert error.message == f"Its trial {name} trial 0 ({going_on}) is RUNNING."
    assert len(trials.of(tuning.id)) == 2


def test_many_trials_that_go_on_are_counted(make: MakeTuning, name: str) -> None:
    tuning = make(name, Crashed())
    for number in range(22):
        flow_run_id = tuning.prefect.add("train", f"t{number}", Running())
        trials.save(tuning.id, row(number, flow_run_id=flow_run_id))

    message = refused(tuning.id).message
    assert message.count("Its trial") == 20
    assert message.endswith("There are 22 in all.")


@pytest.mark.parametrize("where", ["trial", "pool_trial"])
def test_it_stays_while_a_model_is_there_that_a_trial_made(
    make: MakeTuning, name: str, where: str
) -> None:
    tuning = make(name)
    tuning.trial(0)
    made = getattr(tuning, where)(1, model=True)
    run_id = made if isinstance(made, str) else made[1]
    models.create(name, ServingSpec("scikit-learn"), origin=tuning.origin(run_id))

    error = refused(tuning.id)

    assert error.code == "HasModel"
    assert f"models:/{name}/1" in error.message
    assert not is_deleted(run_id)
    deletion.delete("model", name)
    assert deletion.delete("run", tuning.id)["deleted"]


def test_models_of_any_number_of_trials_are_found(
    make: MakeTuning, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their ids are asked for a few at a time; here for two."""
    tuning = make(name)
    left = [tuning.trial(number, model=number in {0, 4}) for number in range(5)]
    for number, suffix in ((0, "a"), (4, "b")):
        models.create(
            f"{name}-{suffix}", ServingSpec("scikit-learn"), origin=tuning.origin(left[number])
        )
    asked: list[str] = []
    search = model_versions._search

    def searching(wanted: str) -> Any:
        asked.append(wanted)
        return search(wanted)

    monkeypatch.setattr(model_versions, "_RUNS_AT_ONCE", 2)
    monkeypatch.setattr(model_versions, "_search", searching)

    assert sorted(map(model_versions.uri, model_versions.of_runs(left))) == [
        f"models:/{name}-a/1", f"models:/{name}-b/1",
    ]  # fmt: skip
    assert len(asked) == 3


STEPS = [
    "the second trial in MLflow", "the trials in the pool", "the files of the trials in the pool",
    "the rows", "the tuning in MLflow", "the tuning in Prefect",
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_interrupted_it_is_repeated(
    make: MakeTuning, name: str, monkeypatch: pytest.MonkeyPatch, mlflow: MlflowServer,
    prefect: PrefectClient, step: str,
) -> None:  # fmt: skip
    tuning = make(name)
    beside = [tuning.trial(number) for number in range(2)]
    in_pool = [tuning.pool_trial(number) for number in (2, 3)]
    delete_run, delete_flow_run = tracking.delete_run, prefect.delete_flow_run
    with monkeypatch.context() as patch:
        if step == "the second trial in MLflow":
            patch.setattr(tracking, "delete_run", stopping_at(beside[1], delete_run))
        elif step == "the trials in the pool":
            patch.setattr(prefect, "delete_flow_run", stopping_at(in_pool[1][0], delete_flow_run))
        elif step == "the files of the trials in the pool":
            stopping = stopping_at(in_pool[0][0], run_removal.remove_files)
            patch.setattr(run_removal, "remove_files", stopping)
        elif step == "the rows":
            patch.setattr(trials, "remove", killed)
        elif step == "the tuning in MLflow":
            patch.setattr(tracking, "delete_run", stopping_at(tuning.run_id, delete_run))
        else:
            patch.setattr(prefect, "delete_flow_run", stopping_at(tuning.id, delete_flow_run))
        with pytest.raises(KeyboardInterrupt):
            deletion.delete("run", tuning.id)

    assert deletion.delete("run", name)["id"] == tuning.id

    left = [tuning.run_id, *beside, *(run_id for _, run_id in in_pool)]
    assert all(is_deleted(run_id) for run_id in left)
    assert [files(run_id, mlflow) for run_id in left] == [set()] * 5
    assert prefect.runs == {}
    assert list(homes.current().runs.iterdir()) == []
    assert trials.of(tuning.id) == []


def stopping_at(subject: str, really: Callable[..., Any]) -> Callable[..., Any]:
    """What is done to others, and kills at this one."""

    def doing(given: Any, *more: Any) -> Any:
        return killed() if str(given) == subject else really(given, *more)

    return doing


def test_a_trial_of_which_no_row_tells_goes_too(make: MakeTuning, name: str) -> None:
    """Such as one that was made just before its tuning was killed."""
    tuning = make(name)
    run_id = tuning.trial(0)
    trials.remove(tuning.id)

    deletion.delete("run", tuning.id)

    assert is_deleted(run_id)


def test_a_trial_elsewhere_in_mlflow_goes_too(make: MakeTuning, name: str) -> None:
    tuning = make(name)
    elsewhere = make(f"{name}-2").trial(0)
    trials.save(tuning.id, row(0, mlflow_run_id=elsewhere))

    deletion.delete("run", tuning.id)

    assert is_deleted(elsewhere)


def test_a_trial_that_prefect_has_no_more_leaves_no_files(
    make: MakeTuning, name: str, prefect: PrefectClient
) -> None:
    tuning = make(name)
    in_pool, run_id = tuning.pool_trial(0)
    prefect.delete_flow_run(next(run for run in prefect.runs if str(run) == in_pool))

    deletion.delete("run", tuning.id)

    assert not folder(in_pool).exists()
    assert is_deleted(run_id)


def test_one_that_never_began_goes(make: MakeTuning, prefect: PrefectClient) -> None:
    waited = prefect.add("tune", "waited", Cancelled())

    assert deletion.delete("run", waited)["deleted"]


def test_in_a_deleted_experiment_it_goes_with_its_trials(
    make: MakeTuning, name: str, mlflow: MlflowServer
) -> None:
    tuning = make(name)
    made = tracking.create_experiment(f"of {name}")
    tuning.run_id = tuning.open(experiment=f"of {name}").run_id
    tuning.prefect.label(tuning.id, tuning.run_id)
    run_id = tuning.trial(0)
    trials.remove(tuning.id)  # so that MLflow alone tells of it
    tracking.client().delete_experiment(made)

    deletion.delete("run", tuning.id)

    assert files(run_id, mlflow) == set()


class TestTrial:
    def test_it_is_not_deleted_alone(self, make: MakeTuning, name: str) -> None:
        tuning = make(name)
        in_pool, run_id = tuning.pool_trial(4)

        error = refused(in_pool)

        assert error.code == "TrialOfTuning"
        assert error.message == (
            f"The run {in_pool} is trial 4 of the tuning {name} ({tuning.id})."
        )
        assert tuning.id in error.hint
        assert not is_deleted(run_id)

    def test_where_its_tuning_is_gone_it_is(
        self, make: MakeTuning, name: str, prefect: PrefectClient
    ) -> None:
        """As somebody may have deleted it in Prefect."""
        tuning = make(name)
        in_pool, run_id = tuning.pool_trial(4)
        prefect.delete_flow_run(next(run for run in prefect.runs if str(run) == tuning.id))

        assert deletion.delete("run", in_pool)["deleted"]
        assert is_deleted(run_id)


def test_a_training_keeps_what_its_script_has_made_below_it(
    prefect: PrefectClient, make: MakeTuning, name: str
) -> None:
    training = make(name)
    tags = {tracking.PARENT_TAG: training.run_id}
    nested = tracking.client().create_run(training.parent.experiment_id, tags=tags).info.run_id

    deletion.delete("run", training.id)

    assert is_deleted(training.run_id)
    assert not is_deleted(nested)
