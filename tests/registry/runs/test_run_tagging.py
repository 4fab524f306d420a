"""Runs of earlier versions get the tags by which experiments find them."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from prefect.states import Cancelled, Failed, Scheduled

from registry import experiments, tracking
from registry.runs import run_tagging, run_tags, runs
from tests.registry.fake_runs import PrefectClient, opening

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    monkeypatch.setattr(runs.pending_reasons, "of", lambda _: {})
    fake = PrefectClient.installed(monkeypatch)
    fake.variables.clear()
    return fake


def opened(prefect: PrefectClient, name: str, parent: str = "") -> str:
    run = prefect.add("train", name, Failed())
    made = tracking.open_run(replace(opening(run, name), parent=parent), retried=False)
    prefect.label(run, made.run_id)
    return run


def test_all_are_tagged_and_then_it_is_done(
    name: str, prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_tagging, "_PAGE", 2)
    experiment = experiments.create(name)["id"]
    of_experiment = [opened(prefect, name) for _ in range(3)]
    trial = opened(prefect, name, parent="m")
    unopened = [
        prefect.add("train", name, state) for state in (Failed(), Cancelled(), Scheduled())
    ]
    done = prefect.add("pipeline-artifacts-cleanup", name)
    for run in prefect.runs.values():
        run.tags = ["mine"]
    assert not run_tagging.is_done()

    run_tagging.tag_earlier()

    tags = {run_id: prefect.runs[UUID(run_id)].tags for run_id in map(str, prefect.runs)}
    assert [tags[run] for run in of_experiment] == [
        ["mine", run_tags.of_experiment(experiment)]
    ] * 3
    assert tags[trial] == ["mine", run_tags.of_trials(experiment)]
    assert [tags[run] for run in unopened] == [["mine", run_tags.NO_MLFLOW_RUN]] * 3
    assert tags[done] == ["mine"]
    assert run_tagging.is_done()


def test_it_is_done_once(prefect: PrefectClient, name: str) -> None:
    run_tagging.tag_earlier()
    run = opened(prefect, name)
    run_tagging.tag_earlier()

    assert prefect.runs[UUID(run)].tags == []


def test_until_then_runs_that_ended_unopened_are_found_without_tags(
    prefect: PrefectClient, name: str
) -> None:
    run = prefect.add("train", "refused", Failed(message="[CreateFailed] Odd: It is odd."))
    opened(prefect, name)

    assert [one.id for one in runs.ended_unopened()] == [run]
    assert [one.id for one in runs.list_all(states=["CREATE FAILED"])] == [run]
    run_tagging.tag_earlier()
    assert [one.id for one in runs.ended_unopened()] == [run]
