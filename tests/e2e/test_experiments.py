"""Experiments, templates and what may be deleted, through the command on a real stack."""

import contextlib
import json

import pytest
import yaml

from tests.e2e.stack import ALGORITHMS, flags

pytestmark = pytest.mark.e2e


def train(stack, algorithm, *states, **parameters):
    """Run one of the test's algorithms until it is in one of ``states``; the run's id."""
    run = stack.start(algorithm, **parameters)
    stack.wait_for_state(run, *states)
    return run


def runs_of(stack, experiment):
    return [row["id"] for row in stack.do("experiment", "show", experiment)["runs"]]


@pytest.fixture
def paused(stack):
    """Hold the pool for the while, so that runs wait in it."""

    def pause(paused_):
        stack.execute(
            "from prefect.client.orchestration import get_client\n"
            "from prefect.client.schemas.actions import WorkPoolUpdate\n"
            "import asyncio\n"
            "from flows.connection import connected\n"
            "async def pause():\n"
            "    async with get_client() as client:\n"
            f"        await client.update_work_pool('gpu', WorkPoolUpdate(is_paused={paused_}))\n"
            "with connected():\n"
            "    asyncio.run(pause())\n"
        )

    @contextlib.contextmanager
    def held():
        pause(True)
        try:
            yield
        finally:
            pause(False)

    return held


def test_an_experiment_is_created_listed_changed_and_deleted(stack):
    made = stack.do("experiment", "create", "vision", "--description", "pictures")
    assert (made["state"], made["description"], made["runs"]) == ("ACTIVE", "pictures", [])
    assert stack.ask("experiment", "create", "vision").error["code"] == "NameTaken"
    rows = {row["name"]: row for row in stack.do("experiment", "list")}
    assert rows["vision"]["id"] == made["id"]
    assert rows["Default"]["state"] == "ACTIVE"

    changed = stack.do("experiment", "update", "vision", "--name", "eyes", "--description", "seen")
    assert (changed["id"], changed["description"]) == (made["id"], "seen")
    assert stack.ask("experiment", "show", "vision").error["code"] == "NotFound"
    assert stack.ask("experiment", "update", "eyes").error["code"] == "BadInput"
    verbs = [deed["verb"] for deed in stack.do("experiment", "show", "eyes")["history"]]
    assert verbs == ["create", "update"]

    assert stack.do("experiment", "delete", "eyes")["deleted"]
    assert stack.ask("experiment", "delete", "eyes").error["code"] == "NotFound"
    assert stack.ask("experiment", "delete", "Default").error["code"] == "DefaultExperiment"
    assert stack.do("experiment", "create", "eyes")["id"] != made["id"]


def test_an_experiment_stays_while_a_run_of_it_goes_on(stack):
    run = train(stack, "stubborn", "RUNNING", experiment="busy", name="busy run")
    error = stack.ask("experiment", "delete", "busy").error
    assert error["code"] == "ExperimentInUse"
    assert run in error["message"]
    assert stack.ask("runs", "delete", run).error["code"] == "RunGoesOn"
    found = stack.do("experiment", "show", "busy")
    assert found["counts"] == {"RUNNING": 1}
    assert found["runs"][0]["name"] == "busy run"
    assert found["deletion_blockers"] == [error["message"]]

    stack.do("runs", "stop", run)
    assert stack.do("experiment", "show", "busy")["counts"] == {"STOPPED": 1}
    assert stack.do("experiment", "delete", "busy")["deleted"]
    assert stack.show(run)["state"] == "STOPPED"
    renamed = stack.ask("runs", "update", run, "--name", "another name")
    assert renamed.error["code"] == "ExperimentDeleted"

    assert stack.ask("runs", "retry", run).error["code"] == "ExperimentDeleted"
    assert stack.show(run)["state"] == "STOPPED"
    assert "busy" not in [row["name"] for row in stack.do("experiment", "list")]
    assert stack.do("runs", "delete", run)["deleted"]


def test_a_model_outlives_the_experiment_that_it_was_made_in(stack):
    run = train(stack, "steps", "COMPLETE", experiment="short-lived", name="lasting")
    stack.do("experiment", "delete", "short-lived")

    [version] = stack.do("model", "show", "lasting")["versions"]
    assert version["flow_run_id"] == run
    artifacts = f"artifacts/list?run_id={version['mlflow_run_id']}&path=model"
    assert [file["path"] for file in stack.mlflow(artifacts)["files"]] == ["model/model.txt"]
    assert stack.ask("runs", "delete", run).error["code"] == "HasModel"


def test_a_run_that_waits_follows_its_experiment_to_its_new_name(stack, paused):
    made = stack.do("experiment", "create", "old name")
    with paused():
        run = stack.start("steps", experiment="old name", name="waited")
        unmade = stack.start("steps", experiment="not yet", name="waited too")
        assert stack.ask("experiment", "delete", "old name").error["code"] == "ExperimentInUse"
        assert stack.do("experiment", "show", "not yet")["state"] == "CREATE REQUESTED"
        stack.do("experiment", "update", "old name", "--name", "new name")
        assert runs_of(stack, "new name") == [run]
    stack.wait_for_state(run, "COMPLETE")
    stack.wait_for_state(unmade, "COMPLETE")

    assert runs_of(stack, "new name") == [run]
    assert stack.do("experiment", "show", "new name")["id"] == made["id"]
    assert stack.ask("experiment", "show", "old name").error["code"] == "NotFound"
    assert stack.do("experiment", "show", "not yet")["state"] == "ACTIVE"

    copied = stack.do("runs", "copy", run)["flow_run_id"]
    stack.wait_for_state(copied, "COMPLETE")
    assert runs_of(stack, "new name") == [copied, run]
    assert stack.ask("experiment", "show", "old name").error["code"] == "NotFound"


def test_a_retry_finds_its_experiment_under_its_new_name(stack):
    run = train(stack, "fails", "FAIL TRAIN", experiment="before", name="again")
    before = stack.show(run)["result"]["mlflow_run_id"]
    stack.do("experiment", "update", "before", "--name", "afterwards")
    stack.do("experiment", "create", "before")

    stack.do("runs", "retry", run)
    found = stack.wait_for_state(run, "FAIL TRAIN")
    assert found["attempts"] == 2
    assert found["result"]["mlflow_run_id"] == before
    assert runs_of(stack, "afterwards") == [run]
    assert runs_of(stack, "before") == []


def test_a_template_is_created_shown_listed_changed_copied_and_deleted(stack, tmp_path):
    file = tmp_path / "template.yaml"
    algorithm = {"uri": str(ALGORITHMS), "entry_point": "steps.py"}
    file.write_text(yaml.dump({"algorithm": algorithm, "hyperparameters": {"steps": 3}}))
    made = stack.do(
        "template", "create", "base", "-f", str(file), "-p", "experiment=templated",
        "--description", "to begin with",
    )  # fmt: skip
    assert made["parameters"] == {
        "algorithm": algorithm, "hyperparameters": {"steps": 3}, "experiment": "templated"
    }  # fmt: skip
    assert made["hyperparameters"] == ["steps"]
    assert stack.do("template", "show", "base") == made
    assert "base" in [row["name"] for row in stack.do("template", "list")]
    assert stack.ask("template", "create", "base").error["code"] == "NameTaken"
    assert stack.ask("template", "show", "bases").error["code"] == "TemplateUnknown"
    assert "base" in stack.ask("template", "show", "bases").error["hint"]

    changed = stack.do(
        "template", "update", "base", "--name", "first",
        "-p", "hyperparameters.seconds=0.01", "-p", "experiment=",
    )  # fmt: skip
    assert changed["parameters"] == {
        "algorithm": algorithm, "hyperparameters": {"seconds": 0.01, "steps": 3}
    }  # fmt: skip
    assert changed["history"][-1]["verb"] == "update"
    for refused, code in (("name=x", "ParameterOfRun"), ("max_minutes=0", "MaxMinutesInvalid")):
        assert stack.ask("template", "update", "first", "-p", refused).error["code"] == code
    assert stack.ask("template", "update", "first").error["code"] == "BadInput"

    copied = stack.do("template", "copy", "first", "second", "-p", "hyperparameters.steps=4")
    assert copied["parameters"]["hyperparameters"] == {"seconds": 0.01, "steps": 4}
    assert stack.do("template", "show", "first")["parameters"] == changed["parameters"]

    stack.do("template", "delete", "first")
    assert stack.ask("template", "delete", "first").error["code"] == "TemplateUnknown"
    names = [row["name"] for row in stack.do("template", "list")]
    assert ("first" in names, "second" in names) == (False, True)


def test_a_run_is_filled_from_a_template(stack):
    asked = flags("steps", {"hyperparameters": {"steps": 3}, "experiment": "filled"})
    stack.do("template", "create", "filling", *asked)
    answer = stack.do(
        "run", "train", "--watch", "-p", "template=filling", "-p", "name=filled run",
        "-p", f"hyperparameters={json.dumps({'seconds': 0.01})}",
    )  # fmt: skip
    assert answer["state"] == "COMPLETE"
    run = answer["flow_run_id"]
    assert runs_of(stack, "filled") == [run]
    log = (stack.home / "runs" / run / "train.log").read_text()
    assert "step 3 loss" in log
    assert "step 4 loss" not in log
    assert stack.ask("run", "train", "-p", "template=none").error["code"] == "TemplateUnknown"

    stack.do("template", "update", "filling", "-p", "hyperparameters.steps=9")
    stack.do("template", "delete", "filling")
    copied = stack.do("runs", "copy", run)["flow_run_id"]
    told = stack.wait_for_state(copied, "COMPLETE")["parameters"]
    assert told["hyperparameters"] == {"steps": 3, "seconds": 0.01}
