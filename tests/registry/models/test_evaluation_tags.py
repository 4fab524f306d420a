"""Evaluations belong to a version also under another name of its model."""

from __future__ import annotations

import uuid

import pytest

from infra.mlflow import MlflowClient
from registry import evaluations, tracking
from registry.evaluation_results import EVALUATED_TAG
from registry.models import model_updates, model_versions
from registry.tracking import Opening
from tests.registry.trained import MakeRun

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture
def registered(name: str, run: MakeRun) -> str:
    return run().registered(name)


def evaluated(uri: str) -> str:
    """The MLflow run of a complete evaluation of a version."""
    run_id = tracking.open_run(
        Opening(str(uuid.uuid4()), "evaluate", uuid.uuid4().hex, "Default", "", "somebody", {}),
        retried=False,
    ).run_id
    tracking.client().set_tag(run_id, EVALUATED_TAG, uri)
    tracking.client().set_terminated(run_id, "FINISHED")
    return run_id


def test_they_follow_a_new_name(name: str, registered: str) -> None:
    first, second = evaluated(registered), evaluated(registered)
    other = evaluated(f"models:/{name}-other/1")

    model_updates.update(name, new=f"{name}-new")

    assert evaluations.of_model(f"{name}-new", 1) == [second, first]
    tags = tracking.client().get_run(other).data.tags
    assert tags[EVALUATED_TAG] == f"models:/{name}-other/1"
    model_updates.update(f"{name}-new", new=name)
    assert evaluations.of_model(name, 1) == [second, first]


def test_killed_before_all_have_it_whoever_asks_next_mends(
    name: str, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [evaluated(registered) for _ in range(3)]
    really, tagged = MlflowClient.set_tag, []

    def set_tag(client: MlflowClient, run_id: str, key: str, value: str) -> None:
        if key == EVALUATED_TAG:
            tagged.append(run_id)
            if len(tagged) == 2:
                raise KeyboardInterrupt
        really(client, run_id, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_tag", set_tag)
        with pytest.raises(KeyboardInterrupt):
            model_updates.update(name, new=f"{name}-new")

    assert evaluations.of_model(f"{name}-new", 1) == runs[::-1]
    assert model_versions.RENAMING_TAG not in model_versions.find_model(f"{name}-new").tags


def test_those_of_an_earlier_model_of_the_name_do_not(name: str, run: MakeRun) -> None:
    run().registered(name)
    earlier = evaluated(f"models:/{name}/1")
    tracking.client().delete_registered_model(name)
    run().registered(name)
    later = evaluated(f"models:/{name}/1")

    model_updates.update(name, new=f"{name}-new")

    assert evaluations.of_model(f"{name}-new", 1) == [later]
    assert tracking.client().get_run(earlier).data.tags[EVALUATED_TAG] == f"models:/{name}/1"


def test_a_name_is_no_pattern(name: str, run: MakeRun) -> None:
    for one in (f"{name}_x", f"{name}-x"):
        run().registered(one)
    other = evaluated(f"models:/{name}-x/1")

    model_updates.update(f"{name}_x", new=f"{name}-new")

    assert evaluations.of_model(f"{name}-x", 1) == [other]
