"""Runs of trials on a real MLflow server."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from infra.errors import ConflictError
from infra.mlflow import Metric
from registry import tracking
from registry.mlflow_writer import MlflowWriter
from registry.tracking import FLOW_RUN_TAG, KIND_TAG, PARENT_TAG
from registry.tunings import trial_runs
from tests.registry.fake_runs import PrefectClient
from tests.registry.tuned import Tuning, is_deleted, opening

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> Tuning:
    return Tuning(PrefectClient.installed(monkeypatch), name, tmp_path)


def test_a_trial_is_a_run_below_its_tuning(tuning: Tuning) -> None:
    run = tracking.client().get_run(trial_runs.open_trial(tuning.parent, 7))

    assert (run.info.run_name, run.info.status) == ("trial 7", "RUNNING")
    tags = run.data.tags
    assert tags[PARENT_TAG] == tuning.run_id
    assert (tags[KIND_TAG], tags[FLOW_RUN_TAG], tags["mlflow.user"]) == ("trial", tuning.id, "me")
    assert run.info.experiment_id == tuning.parent.experiment_id


def test_the_runs_that_are_there_are_found_by_number(tuning: Tuning) -> None:
    other = Tuning(tuning.prefect, f"{tuning.name}-2", tuning.scratch)
    trial_runs.open_trial(other.parent, 0)
    made = {number: trial_runs.open_trial(tuning.parent, number) for number in (2, 0, 11)}
    _, in_pool = tuning.pool_trial(5)
    twice = trial_runs.open_trial(tuning.parent, 0)
    tracking.delete_run(made.pop(11))

    assert trial_runs.children(tuning.parent) == {**made, 5: in_pool}
    assert set(trial_runs.below(tuning.run_id)) >= {*made.values(), in_pool, twice}


def test_there_may_be_more_than_a_page(tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_runs, "_PAGE", 2)
    made = {number: trial_runs.open_trial(tuning.parent, number) for number in range(5)}

    assert trial_runs.children(tuning.parent) == made


def test_runs_that_a_script_makes_below_are_not_ours(tuning: Tuning) -> None:
    tags = {PARENT_TAG: tuning.run_id}
    tracking.client().create_run(tuning.parent.experiment_id, tags=tags)

    assert trial_runs.children(tuning.parent) == {}
    assert trial_runs.below(tuning.run_id) == {}


def test_below_a_run_that_is_gone_there_is_none(tuning: Tuning) -> None:
    assert trial_runs.below("0" * 32) == {}


def test_they_are_deleted_also_where_some_are_already(tuning: Tuning) -> None:
    made = [trial_runs.open_trial(tuning.parent, number) for number in range(6)]
    tracking.delete_run(made[3])

    trial_runs.delete(trial_runs.below(tuning.run_id))

    assert all(is_deleted(run_id) for run_id in made)
    assert not is_deleted(tuning.run_id)


class TestHistory:
    def test_reports_come_in_their_order_with_what_is_no_number(self, tuning: Tuning) -> None:
        reported = [3.0, math.nan, math.inf, 0.0, -math.inf, 1.0, 1.0]
        run_id = tuning.trial(0)
        writer = MlflowWriter(print)
        for number, value in enumerate(reported):
            writer.log_metric(run_id, "loss", value, at=1000.0 + number)
        writer.close(30)

        assert repr(trial_runs.history(run_id, "loss")) == repr(reported)
        assert repr(trial_runs.history(run_id, "loss", 4)) == repr(reported[4:])
        assert trial_runs.history(run_id, "loss", 7) == []
        assert trial_runs.history(run_id, "none") == []

    def test_it_is_the_order_of_time_and_not_of_steps(self, tuning: Tuning) -> None:
        run_id = tuning.trial(0)
        steps = [Metric("loss", value, 1000 + n, step) for n, (value, step) in
                 enumerate([(1.0, 5), (2.0, 0), (3.0, 0)])]  # fmt: skip
        tracking.client().log_batch(run_id, metrics=steps)

        assert trial_runs.history(run_id, "loss") == [1.0, 2.0, 3.0]


class TestTheirTuning:
    """What is done to the tuning's run by its flow run is not done to its trials'."""

    def test_a_retry_opens_its_own_run(self, tuning: Tuning) -> None:
        for number in range(3):
            trial_runs.open_trial(tuning.parent, number)

        assert tuning.open(retried=True).run_id == tuning.run_id

    def test_its_name_is_its_own_and_its_trials_take_none(self, tuning: Tuning) -> None:
        trial_runs.open_trial(tuning.parent, 1)
        tuning.pool_trial(2)

        tracking.check_name("tune", tuning.name, "Default", tuning.id)
        for kind, name in (
            ("tune", "trial 1"), ("train", "trial 1"), ("train", f"{tuning.name} trial 2")
        ):  # fmt: skip
            tracking.check_name(kind, name, "Default")
        with pytest.raises(ConflictError):
            tracking.check_name("tune", tuning.name, "Default")

    def test_with_nobody_who_executes_it_its_trials_are_closed_too(self, tuning: Tuning) -> None:
        run_id = trial_runs.open_trial(tuning.parent, 0)
        mlflow = tracking.client()

        tracking.close_abandoned(lambda flow_run_id: flow_run_id != tuning.id or None)
        assert mlflow.get_run(run_id).info.status == "RUNNING"
        before: list[str] = []
        closed = tracking.close_abandoned(
            lambda flow_run_id: flow_run_id != tuning.id,
            lambda run: before.append(mlflow.get_run(run.info.run_id).info.status),
        )
        assert (closed, before) == (2, ["RUNNING", "RUNNING"])
        assert {mlflow.get_run(each).info.status for each in (run_id, tuning.run_id)} == {"KILLED"}

    def test_closed_a_trial_can_be_opened_again(self, tuning: Tuning) -> None:
        run_id = trial_runs.open_trial(tuning.parent, 0)
        tracking.client().log_batch(run_id, metrics=[Metric("loss", 1.0, 1000, 3)])
        tracking.close_run(run_id, "KILLED")

        assert tracking.reopen_run(run_id).steps == {"loss": 4}
        assert tracking.client().get_run(run_id).info.status == "RUNNING"


def test_a_trial_in_a_pool_is_below_its_tuning(tuning: Tuning) -> None:
    opened = opening("f", "a trial", kind="train", parent=tuning.run_id, trial=3)
    tags = tracking.client().get_run(tracking.open_run(opened, retried=False).run_id).data.tags

    assert (tags[PARENT_TAG], tags[KIND_TAG]) == (tuning.run_id, "train")
    assert PARENT_TAG not in tracking.client().get_run(tuning.run_id).data.tags


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
