"""What tunings show, from a real catalogue and a real MLflow server."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Cancelled, Completed, Running

from infra.mlflow import MlflowClient
from registry import tracking
from registry.runs import runs
from registry.tunings import trial_results, trials, tunings
from tests.registry.fake_runs import PrefectClient
from tests.registry.tuned import Tuning, row

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    return PrefectClient.installed(monkeypatch)


@pytest.fixture
def tuning(prefect: PrefectClient, name: str, tmp_path: Path) -> Tuning:
    made = Tuning(prefect, name, tmp_path)
    tunings.mark_objectives(made.run_id, ["loss"])
    return made


def result(tuning: Tuning) -> dict[str, Any]:
    found: dict[str, Any] = runs.show(tuning.id).to_json()["result"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


class TestResult:
    def test_it_tells_the_trials_and_the_best(self, tuning: Tuning) -> None:
        parameters = {"z": 1, "a": 0.5}
        trials.save(
            tuning.id,
            row(0, mlflow_run_id="m0", parameters=parameters, attempts=2),
            row(1, mlflow_run_id="m1", flow_run_id="f1", values=(0.125,), state="EARLY_STOPPED"),
            row(2, state="FAILED", values=None, reason="It broke."),
        )
        tunings.mark_best(tuning.run_id, [1])

        found = result(tuning)

        lr = {"lr": 0.5}
        assert found == {
            "mlflow_run_id": tuning.run_id,
            "best": {"number": 1, "parameters": lr, "value": 0.125, "mlflow_run_id": "m1"},
            "model_uri": None,
            "trials": [
                {"number": 0, "state": "SUCCEEDED", "parameters": parameters, "value": 0.25,
                 "mlflow_run_id": "m0", "attempts": 2},
                {"number": 1, "state": "EARLY_STOPPED", "parameters": lr, "value": 0.125,
                 "mlflow_run_id": "m1", "flow_run_id": "f1", "attempts": 1},
                {"number": 2, "state": "FAILED", "parameters": lr, "value": None,
                 "mlflow_run_id": None, "reason": "It broke.", "attempts": 1},
            ],
        }  # fmt: skip
        assert list(found["trials"][0]["parameters"]) == ["z", "a"]

    def test_a_page_reads_the_newest_trials_and_the_best(self, tuning: Tuning) -> None:
        trials.save(tuning.id, *(row(number) for number in range(5)))
        trials.save(tuning.id, row(4, state="RUNNING", values=None))
        tunings.mark_best(tuning.run_id, [1])
        tags = tracking.client().get_run(tuning.run_id).data.tags

        found = trial_results.overview(tuning.id, tags, 2, over=True)

        assert [each.number for each in found.trials] == [4, 3]
        assert found.trials[0].state == "KILLED"
        assert [(each.number, each.value) for each in found.best] == [(1, 0.25)]
        assert found.metrics == ["loss"]
        assert (found.counts.done, found.counts.running, found.counts.stopped) == (4, 0, 1)

    def test_without_tags_a_page_knows_no_best_trial(self, tuning: Tuning) -> None:
        trials.save(tuning.id, row(0))

        found = trial_results.overview(tuning.id, {}, 2, over=True)

        assert (found.best, found.metrics, found.trials[0].value) == ([], [], [0.25])

    def test_beside_a_tuning_that_is_over_no_trial_runs(self, tuning: Tuning) -> None:
        beside = row(0, state="RUNNING", values=None)
        trials.save(tuning.id, beside, row(1, state="RUNNING", values=None, flow_run_id="f"))

        for over, state, running in ((False, "RUNNING", 2), (True, "KILLED", 0)):
            found = tunings.result(tuning.id, tuning.run_id, over)
            assert [each.state for each in found.trials] == [state, "RUNNING"]
            told = tunings.summaries({tuning.id: tuning.run_id}, {tuning.id} if over else ())
            assert told[tuning.id].trials.running == running

    def test_the_best_is_what_the_tuning_says(self, tuning: Tuning) -> None:
        trials.save(tuning.id, row(0, values=(0.0,)), row(1, values=(9.0,)))

        assert result(tuning)["best"] is None
        tunings.mark_best(tuning.run_id, [0])
        tunings.mark_best(tuning.run_id, [1])
        assert result(tuning)["best"]["number"] == 1
        tunings.mark_best(tuning.run_id, [])
        assert result(tuning)["best"] is None

    def test_of_several_objectives_there_is_a_front(self, tuning: Tuning) -> None:
        tunings.mark_objectives(tuning.run_id, ["loss", 'a "b" é'])
        both = [
            row(number, values=(float(number), -1.0), mlflow_run_id="m") for number in range(4)
        ]
        trials.save(tuning.id, *both, row(4, values=None))
        tunings.mark_best(tuning.run_id, [1, 3])

        found = result(tuning)

        assert found["best"] is None
        assert found["front"] == [
            {"number": n, "parameters": {"lr": 0.5}, "value": [n, -1.0], "mlflow_run_id": "m"}
            for n in (1, 3)
        ]
        assert [each["value"] for each in found["trials"]][3:] == [[3.0, -1.0], None]

    def test_what_is_no_number_is_none(self, tuning: Tuning) -> None:
        trials.save(tuning.id, *(row(n, values=(v,)) for n, v in enumerate([math.nan, math.inf])))
        assert [each["value"] for each in result(tuning)["trials"]] == [None, None]

        tunings.mark_objectives(tuning.run_id, ["a", "b"])
        trials.save(tuning.id, row(0, values=(math.nan, 1.0)))
        assert result(tuning)["trials"][0]["value"] == [None, 1.0]

    def test_before_it_has_written_anything_down_it_is_empty(
        self, prefect: PrefectClient, name: str, tmp_path: Path
    ) -> None:
        begun = Tuning(prefect, name, tmp_path, Running())

        assert result(begun) == {"mlflow_run_id": begun.run_id, "best": None, "model_uri": None,
                                 "trials": []}  # fmt: skip

    def test_a_tuning_without_an_mlflow_run_shows_none(self, prefect: PrefectClient) -> None:
        assert runs.show(prefect.add("tune", "waits"))["result"] is None

    def test_a_training_shows_what_its_own_run_has(self, tuning: Tuning) -> None:
        flow_run_id, run_id = tuning.pool_trial(0)

        assert runs.show(flow_run_id).result == tracking.result(run_id)

    def test_a_front_longer_than_a_tag_is_cut_between_numbers(self, tuning: Tuning) -> None:
        tunings.mark_best(tuning.run_id, range(100000, 102000))

        kept = trial_results.best(tracking.client().get_run(tuning.run_id).data.tags)
        assert kept == list(range(100000, 100000 + len(kept)))
        assert len(kept) > 700


class TestList:
    def test_it_counts_the_trials_and_tells_the_best_value(
        self, tuning: Tuning, prefect: PrefectClient
    ) -> None:
        tuning = Tuning(prefect, f"{tuning.name}-1", tuning.scratch, Running())
        tunings.mark_objectives(tuning.run_id, ["loss"])
        states = [
            "SUCCEEDED", "EARLY_STOPPED", "CREATED", "RUNNING", "RUNNING", "FAILED",
            "METRICS_UNAVAILABLE", "KILLED",
        ]  # fmt: skip
        trials.save(tuning.id, *(row(n, state=state) for n, state in enumerate(states)))
        trials.save(tuning.id, row(1, state="EARLY_STOPPED", values=(0.5,)))
        tunings.mark_best(tuning.run_id, [1])
        other = Tuning(prefect, f"{tuning.name}-2", tuning.scratch)
        waits = prefect.add("tune", "waits")
        training = prefect.add("train", "t", Completed())

        found = {found["id"]: found for found in runs.list_all()}

        assert found[tuning.id]["trials"] == {"done": 2, "running": 3, "failed": 2, "stopped": 1}
        assert found[tuning.id]["best"] == 0.5
        for run_id in (other.id, waits):
            assert found[run_id]["trials"] == {"done": 0, "running": 0, "failed": 0}
            assert found[run_id]["best"] is None
        assert {"trials", "best"}.isdisjoint(found[training].to_json())

    def test_of_one_that_was_stopped_what_it_tried_is_shown(
        self, tuning: Tuning, prefect: PrefectClient
    ) -> None:
        tuning = Tuning(prefect, f"{tuning.name}-1", tuning.scratch, Cancelled())
        tunings.mark_objectives(tuning.run_id, ["loss"])
        states = ["SUCCEEDED", "KILLED", "RUNNING"]
        trials.save(tuning.id, *(row(n, state=state) for n, state in enumerate(states)))

        (found,) = (row for row in runs.list_all() if row["id"] == tuning.id)

        assert found["trials"] == {"done": 1, "running": 0, "failed": 0, "stopped": 2}

    def test_of_several_objectives_no_value_is_the_best(self, tuning: Tuning) -> None:
        tunings.mark_objectives(tuning.run_id, ["a", "b"])
        trials.save(tuning.id, row(0, values=(1.0, 2.0)))
        tunings.mark_best(tuning.run_id, [0])

        [found] = runs.list_all()
        assert found["best"] is None

    def test_a_value_that_is_no_number_is_none(self, tuning: Tuning) -> None:
        trials.save(tuning.id, row(0, values=(math.inf,)))
        tunings.mark_best(tuning.run_id, [0])

        [found] = runs.list_all()
        assert found["best"] is None

    def test_in_a_deleted_experiment_as_well(self, tuning: Tuning, prefect: PrefectClient) -> None:
        gone = Tuning(prefect, f"{tuning.name}-2", tuning.scratch)
        gone.run_id = gone.open(experiment=f"of {tuning.name}").run_id
        prefect.label(gone.id, gone.run_id)
        trials.save(gone.id, row(0))
        tunings.mark_objectives(gone.run_id, ["a"])
        tunings.mark_best(gone.run_id, [0])
        tracking.client().delete_experiment(gone.parent.experiment_id)

        best = {found["id"]: found["best"] for found in runs.list_all()}
        assert best == {tuning.id: None, gone.id: 0.25}

    def test_it_asks_as_often_for_many_as_for_one(
        self, tuning: Tuning, prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def spy(owner: Any, verb: str) -> None:
            really = getattr(owner, verb)

            def asking(*args: Any, **kwargs: Any) -> Any:
                asked.append(verb)
                return really(*args, **kwargs)

            monkeypatch.setattr(owner, verb, asking)

        spy(trials, "counts")
        spy(trials, "values")
        spy(MlflowClient, "search_runs")
        spy(MlflowClient, "get_run")
        more = [Tuning(prefect, f"{tuning.name}-{n}", tuning.scratch) for n in range(3)]
        for each in (tuning, *more):
            tunings.mark_best(each.run_id, [0])
        asked.clear()

        runs.list_all()

        assert sorted(asked) == ["counts", "search_runs", "values"]
