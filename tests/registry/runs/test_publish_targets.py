from __future__ import annotations

import uuid

import pytest

from registry import tracking
from registry.runs import publish_targets

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture
def place() -> str:
    """A place of which no other test knows."""
    return f"/{uuid.uuid4().hex}/it's"


def _run() -> str:
    mlflow = tracking.client()
    experiment = mlflow.create_experiment(f"experiment-{uuid.uuid4().hex}")
    return str(mlflow.create_run(experiment).info.run_id)


def test_a_place_is_known_once_a_run_publishes_to_it(place: str) -> None:
    assert not publish_targets.is_known(place)

    publish_targets.record(_run(), place)

    assert publish_targets.is_known(place)
    assert not publish_targets.is_known(f"{place}s")
    assert not publish_targets.is_known(place[:-1])


def test_a_folder_around_it_is_not_known(place: str) -> None:
    publish_targets.record(_run(), f"{place}/0")

    assert not publish_targets.is_known(place)


def test_it_stays_known_when_the_run_is_deleted(place: str) -> None:
    run = _run()
    publish_targets.record(run, place)
    tracking.client().delete_run(run)

    assert publish_targets.is_known(place)


def test_what_no_filter_can_say_is_not_known() -> None:
    assert not publish_targets.is_known("""/a'b"c""")
