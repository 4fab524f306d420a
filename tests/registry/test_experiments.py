"""Experiments on a real MLflow server; Prefect's side is a list of runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from infra.errors import BadInputError, ConflictError, ModelyardError, NotFoundError
from infra.mlflow import MlflowClient, MlflowException
from registry import deletion, experiment_names, experiments, tracking, training_templates
from registry.runs.run_filters import RunGroup
from registry.tracking import Opening
from registry.tunings import trial_runs, trials
from tests.registry.fake_runs import (
    Prefect,
    exists,
    experiment_of,
    killed,
    new_id,
    opening,
)
from tests.registry.tuned import row

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture(autouse=True)
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    return Prefect.installed(monkeypatch)


class TestCreate:
    def test_it_is_listed_and_shown(self, name: str) -> None:
        made = experiments.create(name, "what it is for")

        assert (made["name"], made["state"], made["description"]) == (
            name, "ACTIVE", "what it is for",
        )  # fmt: skip
        assert (made["runs"], made["counts"], made["deletion_blockers"]) == ([], {}, [])
        assert made["links"]["mlflow"].endswith(
            f"/#/experiments/{made['id']}/runs?workflowType=machine_learning"
        )
        assert [deed["verb"] for deed in made["history"]] == ["create"]
        [row] = [row for row in experiments.list_all() if row["name"] == name]
        assert row.to_json() == {key: made[key] for key in row.to_json()}

    def test_a_name_is_given_once(self, name: str) -> None:
        experiments.create(name, "first")

        with pytest.raises(ConflictError) as raised:
            experiments.create(name, "second")

        assert raised.value.code == "NameTaken"
        assert experiments.show(name)["description"] == "first"

    def test_a_name_that_was_deleted_in_mlflow_is_told_so(self, name: str) -> None:
        tracking.client().delete_experiment(experiments.create(name)["id"])

        with pytest.raises(ConflictError) as raised:
            experiments.create(name)

        assert raised.value.code == "ExperimentDeleted"
        assert "restore it in MLflow" in raised.value.hint

    @pytest.mark.parametrize(
        "name", ["", " ", " a", "a ", "a\n", "a\0b", "e" * 251, "\u200b"], ids=repr
    )
    def test_names_that_cannot_be_kept_are_refused(self, name: str) -> None:
        with pytest.raises(BadInputError) as raised:
            experiments.create(name)

        assert raised.value.code == "ExperimentInvalid"

    @pytest.mark.parametrize("extra", ["이름 [1]", "a/b: 'c' \"d\" `e` %", "e" * 240])
    def test_other_names_are_fine(self, name: str, extra: str) -> None:
        odd = f"{extra[: 249 - len(name)]} {name}"

        assert experiments.create(odd)["name"] == odd
        assert experiments.update(odd, None, "described")["description"] == "described"
        assert deletion.delete("experiment", odd)["deleted"]

    @pytest.mark.parametrize("description", ["d" * 4001, "a\0"])
    def test_descriptions_that_cannot_be_kept_are_refused(
        self, name: str, description: str
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            experiments.create(name, description)

        assert raised.value.code == "TextInvalid"
        assert not exists(name)

    def test_an_unknown_one_is_not_found(self, name: str) -> None:
        for ask in (
            experiments.show, experiments.find, experiments.group,
            lambda n: experiments.update(n, None, ""),
        ):  # fmt: skip
            with pytest.raises(NotFoundError, match=name):
                ask(name)


class TestRuns:
    @pytest.mark.parametrize("tagged", [True, False])
    def test_they_are_listed_newest_first_and_counted(
        self, name: str, prefect: Prefect, tagged: bool
    ) -> None:
        prefect.tagged = tagged
        experiments.create(name)
        done = prefect.add("COMPLETE", opened=True, experiment="whatever")
        experiment_of(done, name)
        waiting = prefect.add("CREATE REQUESTED", experiment=name)
        refused = prefect.add("CREATE FAILED", experiment=name)
        failed = prefect.add("FAIL TRAIN", opened=True, experiment=name)
        experiment_of(failed, name)
        prefect.add("RUNNING", opened=True, experiment=name)  # it has opened another one
        prefect.add("RUNNING", experiment="another")

        found = experiments.show(name)

        assert [row["id"] for row in found["runs"]] == [failed, refused, waiting, done]
        assert found["counts"] == {
            "COMPLETE": 1, "CREATE REQUESTED": 1, "CREATE FAILED": 1, "FAIL TRAIN": 1
        }  # fmt: skip
        assert [row["id"] for row in experiments.show(name, 1)["runs"]] == [failed]
        assert experiments.show(name, 1)["counts"] == found["counts"]
        group = experiments.group(name)
        assert {run.id for run in prefect.list_all(9, [group])} == {failed, refused, waiting, done}

    @pytest.mark.parametrize("tagged", [True, False])
    def test_a_tuning_is_one_run_whatever_its_trials_have(
        self, name: str, prefect: Prefect, tagged: bool
    ) -> None:
        prefect.tagged = tagged
        tuning, in_pool, waiting = (
            prefect.add(state, opened=state != "CREATE REQUESTED", experiment=name)
            for state in ("RUNNING", "COMPLETE", "CREATE REQUESTED")
        )
        run_id = tracking.open_run(opening(tuning, name, "tune"), retried=False).run_id
        for number in range(3):
            trial_runs.open_trial(trial_runs.parent(run_id), number)
        tracking.open_run(replace(opening(in_pool, name), parent=run_id), retried=False)
        for number, flow_run_id in enumerate((in_pool, waiting)):
            trials.save(tuning, row(number, flow_run_id=flow_run_id))

        found = experiments.show(name)

        assert [each["id"] for each in found["runs"]] == [tuning]
        assert found["counts"] == {"RUNNING": 1}

    def test_of_an_earlier_version_runs_are_asked_for_and_not_trials(
        self, name: str, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prefect.tagged = False
        tuning = prefect.add("RUNNING", opened=True, experiment=name)
        run_id = tracking.open_run(opening(tuning, name, "tune"), retried=False).run_id
        trial_runs.open_trial(trial_runs.parent(run_id), 0)
        asked: list[int] = []
        search = MlflowClient.search_runs

        def searching(*args: Any, **kwargs: Any) -> Any:
            found = search(*args, **kwargs)
            asked.append(len(found))
            return found

        monkeypatch.setattr(MlflowClient, "search_runs", searching)
        experiments.show(name)

        assert set(asked) == {1}

    def test_one_that_names_none_is_of_default(self, prefect: Prefect) -> None:
        run = prefect.add("CREATE REQUESTED")

        assert run in [row["id"] for row in experiments.show("Default")["runs"]]

    def test_a_form_names_it_by_its_template(self, name: str, prefect: Prefect) -> None:
        experiments.create(name)
        training_templates.create(f"t {name}", "", {"experiment": name})
        run = prefect.add("CREATE REQUESTED", experiment=None, template=f"t {name}")
        prefect.add("CREATE REQUESTED", experiment=None, template="no such template")
        prefect.add("CREATE REQUESTED", experiment="Default", template=f"t {name}")

        assert [row["id"] for row in experiments.show(name)["runs"]] == [run]

    @pytest.mark.parametrize(
        ("states", "state"),
        [
            (["CREATE REQUESTED"], "CREATE REQUESTED"),
            (["CREATE REQUESTED", "RUNNING"], "CREATE IN PROGRESS"),
            (["CREATE IN PROGRESS"], "CREATE IN PROGRESS"),
        ],
    )
    def test_one_that_a_run_will_make_is_being_created(
        self, name: str, prefect: Prefect, states: list[str], state: str
    ) -> None:
        waiting = [prefect.add(each, experiment=name) for each in states]

        found = experiments.show(name)

        assert (found["id"], found["state"]) == (None, state)
        assert {row["id"] for row in found["runs"]} == set(waiting)
        assert experiments.group(name) == RunGroup((), frozenset(waiting))
        assert (name, state) in [(row["name"], row["state"]) for row in experiments.list_all()]
        with pytest.raises(ConflictError) as raised:
            deletion.delete("experiment", name)
        assert raised.value.code == "ExperimentInUse"
        assert all(run in raised.value.message for run in waiting)
        assert all(blocker in raised.value.message for blocker in found["deletion_blockers"])
        assert len(found["deletion_blockers"]) == len(waiting)

    def test_a_runs_description_is_not_the_experiments(self, name: str) -> None:
        experiments.create(name, "of the experiment")
        described = Opening(new_id(), "train", "a run", name, "of the run", "me", {})
        tracking.open_run(described, retried=False)

        assert experiments.show(name)["description"] == "of the experiment"


class TestRename:
    def test_it_is_renamed_and_described(self, name: str) -> None:
        made = experiments.create(name)

        found = experiments.update(name, f"{name} 2", "new")

        assert (found["id"], found["description"]) == (made["id"], "new")
        assert found["history"][-1]["verb"] == "update"
        assert found["history"][-1]["detail"]["was"] == name
        assert not exists(name)

    @pytest.mark.parametrize("retried", [False, True])
    def test_a_run_that_was_created_before_means_it(self, name: str, retried: bool) -> None:
        made = experiments.create(name)
        run = new_id()
        if retried:
            experiment_of(run, name)
        experiments.update(name, f"{name} 2", None)

        assert experiment_of(run, name, retried=retried) == made["id"]
        assert not exists(name)

    def test_a_retry_finds_its_own_run_where_mlflow_renamed_the_experiment(
        self, name: str
    ) -> None:
        made = experiments.create(name)
        run = new_id()
        experiment_of(run, name)
        tracking.client().rename_experiment(made["id"], f"{name} 2")

        assert experiment_of(run, name, retried=True) == made["id"]
        assert not exists(name)

    def test_a_run_that_is_created_afterwards_means_the_one_of_the_name(self, name: str) -> None:
        made = experiments.create(name)
        before = new_id()
        experiments.update(name, f"{name} 2", None)
        after = new_id()

        assert experiment_of(after, name) != made["id"]
        assert experiment_of(before, name) == made["id"]

    def test_it_is_found_through_several_names(self, name: str) -> None:
        """Also where the names were another's in turn."""
        ids, made = [], []
        for number in range(3):
            made.append(experiments.create(name)["id"])
            ids.append(new_id())
            experiments.update(name, f"{name} {number}", None)
            experiments.update(f"{name} {number}", f"{name} old {number}", None)

        assert [experiment_of(run, name) for run in ids] == made
        assert not exists(name)

    def test_it_may_be_called_as_before(self, name: str) -> None:
        made = experiments.create(name)
        runs_ = [new_id()]
        for old, new in ((name, "x" + name), ("x" + name, name)):
            experiments.update(old, new, None)
            runs_.append(new_id())

        assert {experiment_of(run, name) for run in runs_} == {made["id"]}

    def test_a_run_that_waits_is_still_among_its_runs(self, name: str, prefect: Prefect) -> None:
        experiments.create(name)
        run = prefect.add("CREATE REQUESTED", experiment=name)
        experiments.update(name, f"{name} 2", None)

        assert [row["id"] for row in experiments.show(f"{name} 2")["runs"]] == [run]
        assert name not in [row["name"] for row in experiments.list_all()]
        assert experiments.name_now({"experiment": name}, run) == f"{name} 2"

    def test_a_name_is_still_unique_among_runs_created_before(self, name: str) -> None:
        experiments.create(name)
        first, second = new_id(), new_id()
        tracking.open_run(opening(first, name), retried=False)
        experiments.update(name, f"{name} 2", None)

        with pytest.raises(ConflictError) as raised:
            tracking.check_name("train", f"run {first}", name, second)

        assert raised.value.code == "NameTaken"

    def test_templates_follow(self, name: str) -> None:
        experiments.create(name)
        for experiment in (name, "another"):
            training_templates.create(f"{experiment} of {name}", "", {"experiment": experiment})

        experiments.update(name, f"{name} 2", None)

        assert training_templates.parameters(f"{name} of {name}") == {"experiment": f"{name} 2"}
        assert training_templates.parameters(f"another of {name}") == {"experiment": "another"}

    def test_a_taken_name_is_refused(self, name: str) -> None:
        for each in (name, f"{name} 2", f"{name} 3"):
            experiments.create(each)
        tracking.client().delete_experiment(experiments.show(f"{name} 3")["id"])

        for taken in (f"{name} 2", f"{name} 3"):
            with pytest.raises(ConflictError) as raised:
                experiments.update(name, taken, "changed")
            assert raised.value.code == "NameTaken"
        assert experiments.show(name)["description"] == ""

    def test_default_keeps_its_name(self) -> None:
        with pytest.raises(ConflictError) as raised:
            experiments.update("Default", "mine", None)

        assert raised.value.code == "DefaultExperiment"
        assert experiments.update("Default", None, "for all")["description"] == "for all"

    @pytest.mark.parametrize("step", ["rename_experiment", "rename in templates"])
    def test_interrupted_it_is_repeated(
        self, name: str, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        made = experiments.create(name)
        training_templates.create(name, "", {"experiment": name})
        run = new_id()
        with monkeypatch.context() as patch:
            if step == "rename_experiment":
                patch.setattr("infra.mlflow.MlflowClient.rename_experiment", killed)
            else:
                patch.setattr(training_templates, "rename", killed)
            with pytest.raises(KeyboardInterrupt):
                experiments.update(name, f"{name} 2", None)

        assert experiment_of(run, name) == made["id"]
        assert experiments.update(name, f"{name} 2", None)["id"] == made["id"]
        assert training_templates.parameters(name) == {"experiment": f"{name} 2"}


class TestEnsure:
    def test_it_is_made_once(self, name: str) -> None:
        run = new_id()

        assert tracking.ensure_experiment(name, run) == tracking.ensure_experiment(name)

    def test_one_that_somebody_makes_meanwhile_is_taken(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[str] = []

        def nothing_yet(*_: Any) -> experiment_names.Holders:
            made.append(experiments.create(name)["id"]) if not made else None
            return experiment_names.Holders(None, ())

        monkeypatch.setattr(experiment_names, "holders", nothing_yet)
        monkeypatch.setattr(experiments, "show", lambda _: {"id": "shown"})
        found = tracking.ensure_experiment(name)

        assert found == str(tracking.client().get_experiment_by_name(name).experiment_id)

    def test_what_mlflow_refuses_is_not_hidden(self) -> None:
        with pytest.raises(MlflowException):
            tracking.ensure_experiment("e" * 501)

    def test_a_run_that_nobody_knows_means_the_present_one(self, name: str) -> None:
        experiments.create(name)
        experiments.update(name, f"{name} 2", None)
        present = experiments.create(name)

        for run in ("", str(uuid4())):
            assert tracking.ensure_experiment(name, run) == present["id"]


def test_every_error_tells_how_to_mend_it(name: str) -> None:
    experiments.create(name)
    for fails in (
        lambda: experiments.create(name),
        lambda: experiments.update("Default", "x", None),
        lambda: experiments.update(name, "Default", None),
        lambda: deletion.delete("experiment", "Default"),
        lambda: deletion.delete("experiment", f"no {name}"),
    ):
        with pytest.raises(ModelyardError) as raised:
            fails()
        assert raised.value.message
        assert raised.value.hint
