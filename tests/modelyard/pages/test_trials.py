"""The page of a tuning: its trials, and the best."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from registry.tunings.tuning_views import TrialCounts, TrialView, TuningOverviewView
from tests.modelyard.pages.conftest import OTHER, RUN, World, tracked

HOSTILE = "<script>alert(1)</script>\n"


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")


def trial(number: int, **told: Any) -> TrialView:
    given = {"state": "SUCCEEDED", "parameters": {"lr": 0.031238921}, "value": 0.98,
             "mlflow_run_id": f"m{number}", "attempts": 1}  # fmt: skip
    return TrialView(number=number, **{**given, **told})


def tried(*trials: TrialView, best: tuple[int, ...] = (), **told: Any) -> TuningOverviewView:
    given = {"counts": TrialCounts(done=len(trials), running=0, failed=0), "metrics": ["accuracy"]}
    marked = [one for one in trials if one.number in best]
    return TuningOverviewView(best=marked, trials=list(trials), **{**given, **told})


@pytest.fixture
def page(world: World, client: TestClient) -> Any:
    world.exist(flow="tune", mlflow_run_id="m")
    world.tracked_as["m"] = tracked()
    return lambda: client.get(f"/runs/{RUN}").text


def test_the_trials_are_listed_with_the_best(world: World, page: Any) -> None:
    world.tried = tried(
        trial(2, state="EARLY_STOPPED", value=0.5, reason=HOSTILE),
        trial(1, parameters={"hidden": 24, "activation": HOSTILE, "on": True}),
        trial(0, flow_run_id="f0", mlflow_run_id=None, value=None),
        best=(1,),
    )
    shown = page()

    assert "3 trials: 3 done" in shown
    assert '<a href="http://mlflow/#/experiments/e1/runs/m1?' in shown
    assert '<a href="/runs/f0">Trial 0</a>' in shown
    assert shown.count('class="best"') == 1
    assert "<strong>accuracy 0.98</strong>" in shown
    assert 'data-state="EARLY STOPPED"' in shown
    assert 'data-label="accuracy" class="value">0.5</td>' in shown
    assert 'data-label="accuracy" class="value" data-empty></td>' in shown
    assert "0.0312389" in shown
    assert "true</span>" in shown
    assert "<script>alert" not in shown


def test_of_several_objectives_each_trial_of_the_front_is_best(world: World, page: Any) -> None:
    world.tried = tried(
        trial(1, value=[0.9, None]), trial(0, value=[0.8, 12.0]), best=(0, 1),
        metrics=["accuracy", "size"],
    )  # fmt: skip
    shown = page()

    assert shown.count('class="best"') == 2
    assert ">accuracy, size</th>" in shown
    assert ">0.8, 12</td>" in shown
    assert ">0.9, not a number</td>" in shown


def test_only_the_newest_are_listed(world: World, page: Any) -> None:
    counts = TrialCounts(done=900, running=2, failed=98, stopped=1)
    world.tried = tried(trial(1000), counts=counts)

    assert "1001 trials: 900 done, 2 running, 98 failed, 1 stopped" in page()
    assert f"… and 1000 older: <code>modelyard runs show {RUN}</code>" in page()


def test_before_the_first_trial_there_is_none(world: World, page: Any) -> None:
    world.tracked_as.clear()

    assert "No trial yet." in page()


def test_while_the_catalogue_is_silent_the_rest_is_shown(world: World, page: Any) -> None:
    world.broken = OperationalError("select 1", {}, OSError("away"))

    assert "The trials are not shown." in page()
    assert "a run" in page()


def test_a_training_has_no_trials(world: World, client: TestClient) -> None:
    world.exist(flow="train")

    assert "Trials" not in client.get(f"/runs/{RUN}").text


def test_a_trial_leads_to_its_tuning(world: World, client: TestClient) -> None:
    world.exist(flow="train", tuning_id=OTHER)
    world.exist(flow="tune", run=OTHER, name=f"mine{HOSTILE}")
    page = client.get(f"/runs/{RUN}").text

    assert f'<dt>Trial of</dt><dd><a href="/runs/{OTHER}">mine&lt;script' in page
    del world.known[OTHER]
    assert f'<a href="/runs/{OTHER}">{OTHER}</a>' in client.get(f"/runs/{RUN}").text
