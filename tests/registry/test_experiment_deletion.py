"""The deletion of experiments on a real MLflow server; Prefect's side is a list of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.errors import ConflictError, NotFoundError
from registry import deletion, experiment_names, experiments, history, tracking, training_templates
from registry.schedules import schedules
from registry.tunings import trial_runs, trials
from tests.registry.fake_runs import (
    Prefect,
    exists,
    experiment_of,
    killed,
    new_id,
    opening,
)
from tests.registry.scheduled import scheduled
from tests.registry.tuned import is_deleted, row

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture(autouse=True)
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    return Prefect.installed(monkeypatch)


@pytest.fixture
def at_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have something done between the first look at the guards and the deletion."""

    def have(do: Callable[[], Any]) -> None:
        mark = experiment_names.mark_deleting

        def marking(*arguments: Any) -> None:
            do()
            mark(*arguments)

        monkeypatch.setattr(experiment_names, "mark_deleting", marking)

    return have


class TestDelete:
    def test_it_is_gone_and_its_name_free(self, name: str) -> None:
        made = experiments.create(name)

        assert deletion.delete("experiment", name) == {
            "id": made["id"], "name": name, "deleted": True
        }  # fmt: skip

        assert name not in [row["name"] for row in experiments.list_all()]
        with pytest.raises(NotFoundError):
            experiments.show(name)
        with pytest.raises(NotFoundError):
            deletion.delete("experiment", name)
        again = experiments.create(name)
        assert again["id"] != made["id"]
        assert history.of("experiment", made["id"])[-1]["verb"] == "delete"
        assert deletion.delete("experiment", name)["id"] == again["id"]

    def test_default_stays(self) -> None:
        with pytest.raises(ConflictError) as raised:
            deletion.delete("experiment", "Default")

        assert raised.value.code == "DefaultExperiment"
        assert raised.value.message in experiments.show("Default").deletion_blockers

    @pytest.mark.parametrize("state", ["CREATE REQUESTED", "RUNNING", "STOP IN PROGRESS"])
    @pytest.mark.parametrize("opened", [False, True])
    def test_it_stays_while_a_run_goes_on(
        self, name: str, prefect: Prefect, state: str, opened: bool
    ) -> None:
        experiments.create(name)
        run = prefect.add(state, opened, experiment=name)
        if opened:
            experiment_of(run, name)
        prefect.add("COMPLETE", experiment=name)
        prefect.add("RUNNING", experiment="another")

        with pytest.raises(ConflictError) as raised:
            deletion.delete("experiment", name)

        assert raised.value.code == "ExperimentInUse"
        assert raised.value.message == f"The run run 0 ({run}) is {state}."
        assert experiments.show(name)["state"] == "ACTIVE"
        assert experiments.show(name).deletion_blockers == [raised.value.message]

    def test_many_runs_are_counted(self, name: str, prefect: Prefect) -> None:
        experiments.create(name)
        for _ in range(25):
            prefect.add("CREATE REQUESTED", experiment=name)

        with pytest.raises(ConflictError, match=r"There are 25 in all\.") as raised:
            deletion.delete("experiment", name)

        assert raised.value.message.count("is CREATE REQUESTED") == 20

    def test_runs_that_ended_and_their_models_stay(self, name: str, prefect: Prefect) -> None:
        run = prefect.add("COMPLETE", opened=True, experiment=name)
        mlflow_run = tracking.open_run(opening(run, name), retried=False).run_id
        tracking.close_run(mlflow_run, "FINISHED")

        deletion.delete("experiment", name)

        assert tracking.result(mlflow_run)["mlflow_run_id"] == mlflow_run
        tracking.delete_run(mlflow_run)  # as `runs delete` does

    def test_it_stays_while_a_trial_of_a_tuning_goes_on(self, name: str, prefect: Prefect) -> None:
        experiments.create(name)
        run = prefect.add("RUNNING", opened=True, experiment=name)
        experiment_of(run, name)
        trials.save("a tuning that was killed", row(0, flow_run_id=run))

        with pytest.raises(ConflictError) as raised:
            deletion.delete("experiment", name)

        assert raised.value.code == "ExperimentInUse"

    def test_it_takes_a_tuning_s_trials_along_in_mlflow(self, name: str, prefect: Prefect) -> None:
        tuning = prefect.add("COMPLETE", opened=True, experiment=name)
        run_id = tracking.open_run(opening(tuning, name, "tune"), retried=False).run_id
        trial = trial_runs.open_trial(trial_runs.parent(run_id), 0)

        deletion.delete("experiment", name)

        assert is_deleted(trial)
        assert list(trial_runs.below(run_id)) == [trial]

    def test_a_run_that_comes_at_the_last_moment_keeps_it(
        self, name: str, prefect: Prefect, at_the_last_moment: Callable[..., None]
    ) -> None:
        made = experiments.create(name)
        at_the_last_moment(lambda: prefect.add("CREATE REQUESTED", experiment=name))

        with pytest.raises(ConflictError) as raised:
            deletion.delete("experiment", name)

        assert raised.value.code == "ExperimentInUse"
        found = experiments.show(name)
        assert (found["id"], found["state"]) == (made["id"], "ACTIVE")
        [run] = prefect.runs
        assert experiment_of(run, name) == made["id"]

    def test_a_run_that_comes_while_it_goes_gets_a_new_one(self, name: str) -> None:
        made = experiments.create(name)
        experiments.claim(made["id"])
        run = new_id()

        assert experiment_of(run, name) != made["id"]
        experiments.remove(made["id"])
        assert experiments.show(name)["state"] == "ACTIVE"

    @pytest.mark.parametrize("retried", [False, True])
    @pytest.mark.parametrize("ended", [False, True], ids=["claimed", "deleted"])
    def test_a_run_of_before_is_refused_clearly(
        self, name: str, ended: bool, retried: bool
    ) -> None:
        """Such as one that is retried after the deletion."""
        run = new_id()
        made = experiments.create(name)
        experiments.claim(made["id"])
        if ended:
            experiments.remove(made["id"])

        for refused in (
            lambda: tracking.open_run(opening(run, name), retried=retried),
            lambda: tracking.check_experiment(name, run),
        ):
            with pytest.raises(ConflictError) as raised:
                refused()
            assert raised.value.code == "ExperimentDeleted"
            assert f"modelyard runs copy {run}." in raised.value.hint
        assert not exists(name)
        assert experiments.name_now({"experiment": name}, run) is None

    def test_a_retry_is_refused_where_its_own_mlflow_run_went(self, name: str) -> None:
        run = new_id()
        experiment_of(run, name)
        deletion.delete("experiment", name)
        experiments.create(name)

        with pytest.raises(ConflictError) as raised:
            tracking.open_run(opening(run, name), retried=True)

        assert raised.value.code == "ExperimentDeleted"

    def test_an_experiment_that_goes_while_its_run_opens_is_told(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = experiments.create(name)
        ensure = tracking.ensure_experiment

        def ensured(*arguments: str) -> str:
            found = ensure(*arguments)
            deletion.delete("experiment", name)
            return found

        monkeypatch.setattr(tracking, "ensure_experiment", ensured)

        with pytest.raises(ConflictError) as raised:
            tracking.open_run(opening(new_id(), name), retried=False)

        assert raised.value.code == "ExperimentDeleted"
        assert tracking.client().get_experiment(made["id"]).lifecycle_stage == "deleted"

    @pytest.mark.parametrize("step", ["rename_experiment", "delete_experiment"])
    def test_interrupted_it_is_repeated(
        self, name: str, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        made = experiments.create(name)
        with monkeypatch.context() as patch:
            patch.setattr(f"infra.mlflow.MlflowClient.{step}", killed)
            with pytest.raises(KeyboardInterrupt):
                deletion.delete("experiment", name)

        found = experiments.show(name)
        if step == "delete_experiment":
            assert found["state"] == "DELETE IN PROGRESS"
            assert found["name"].startswith(f"{name} (deleted 20")
        else:
            assert found["state"] == "ACTIVE"
        assert deletion.delete("experiment", name) == {
            "id": made["id"], "name": name, "deleted": True
        }  # fmt: skip
        assert experiments.create(name)["id"] != made["id"]

    def test_one_half_gone_is_deleted_by_its_last_name_where_another_has_its_own(
        self, name: str
    ) -> None:
        made = experiments.create(name)
        experiments.claim(made["id"])
        last = experiments.show(name)["name"]
        another = experiments.create(name)

        assert deletion.delete("experiment", last)["id"] == made["id"]
        assert experiments.show(name)["id"] == another["id"]

    def test_one_half_gone_can_be_kept_under_a_name(self, name: str) -> None:
        made = experiments.create(name)
        experiments.claim(made["id"])

        found = experiments.update(name, f"{name} kept", None)

        assert (found["id"], found["state"]) == (made["id"], "ACTIVE")

    def test_where_another_took_the_name_it_stays_half_gone(
        self, name: str, prefect: Prefect, at_the_last_moment: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        made = experiments.create(name)
        at_the_last_moment(lambda: prefect.add("RUNNING", experiment=name))
        release = experiments.release
        taken: list[Any] = []

        def releasing(experiment_id: str) -> None:
            taken.append(experiments.create(name))
            release(experiment_id)

        rule = deletion._RULES["experiment"]
        changed = deletion.Rule(rule.find, rule.guards, rule.remove, rule.claim, releasing)
        monkeypatch.setitem(deletion._RULES, "experiment", changed)

        with pytest.raises(ConflictError):
            deletion.delete("experiment", name)

        assert experiments.show(name)["id"] == taken[0]["id"]
        last = tracking.client().get_experiment(made["id"]).name
        assert experiments.show(last)["state"] == "DELETE IN PROGRESS"


class TestSchedules:
    @pytest.fixture(autouse=True)
    def _of(self, name: str, mlflow: Any) -> Iterator[None]:
        """Schedules that name the experiment, by themselves or through their template."""
        training_templates.create(f"t {name}", "", {"experiment": name})
        kept = {
            f"own {name}": {"experiment": name},
            f"through {name}": {"template": f"t {name}", "experiment": None},
            f"another {name}": {"experiment": f"{name} 2"},
        }
        for schedule, parameters in kept.items():
            schedules.add(scheduled(schedule, parameters))
        yield
        for schedule in kept:
            deletion.delete("schedule", schedule)

    def test_it_stays_while_it_has_schedules(self, name: str) -> None:
        made = experiments.create(name)
        with pytest.raises(ConflictError) as raised:
            deletion.delete("experiment", name)

        assert raised.value.code == "HasSchedule"
        assert raised.value.message == f"It has the schedule own {name}, through {name}."
        assert experiments.show(name)["id"] == made["id"]
        assert experiments.show(name).deletion_blockers == [raised.value.message]

    def test_one_that_names_it_at_some_slot_keeps_it(self, name: str) -> None:
        yearly = f"{name} 2027"
        experiments.create(yearly)
        late = f"yearly {name}"
        schedules.add(scheduled(late, {"experiment": name + ' {{ slot.strftime("%Y") }}'}))
        with pytest.raises(ConflictError) as raised:
            deletion.delete("experiment", yearly)

        assert raised.value.code == "HasSchedule"
        assert late in raised.value.message
        deletion.delete("schedule", late)
        deletion.delete("experiment", yearly)

    def test_one_that_comes_at_the_last_moment_keeps_it(
        self, name: str, at_the_last_moment: Callable[..., None]
    ) -> None:
        other = f"{name} 3"
        experiments.create(other)
        late = f"late {name}"
        at_the_last_moment(lambda: schedules.add(scheduled(late, {"experiment": other})))
        with pytest.raises(ConflictError) as raised:
            deletion.delete("experiment", other)

        assert raised.value.code == "HasSchedule"
        assert experiments.show(other)["state"] == "ACTIVE"
        deletion.delete("schedule", late)

    def test_schedules_follow_its_new_name(self, name: str) -> None:
        experiments.create(name)
        new = f"{name} new"
        experiments.update(name, new, None)

        told = schedules.names_and_parameters()
        assert told[f"own {name}"] == {"experiment": new}
        assert told[f"through {name}"]["experiment"] is None
        assert told[f"another {name}"] == {"experiment": f"{name} 2"}
        assert experiments.show(new)["history"][-1]["detail"]["schedules"] == [f"own {name}"]
