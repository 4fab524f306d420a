"""Runs that are filled from a template, however they are started."""

import json

import pytest

from tests.e2e.stack import ALGORITHMS, flags

pytestmark = pytest.mark.e2e


@pytest.fixture
def template(stack, request):
    name = f"steps of {request.node.name}"
    stack.do(
        "template", "create", name, "--description", "three steps",
        *flags("steps", {"hyperparameters": {"steps": 3, "rate": 0.5},
                         "metrics": [{"name": "loss"}], "resources": {"nodes": 1},
                         "max_minutes": 5}),
    )  # fmt: skip
    return name


def _complete(stack, run):
    assert (
        stack.wait_for_state(run, "COMPLETE", "FAIL TRAIN", "CREATE FAILED")["state"] == "COMPLETE"
    )
    return stack.show(run)


def test_from_the_command(stack, template):
    started = stack.do(
        "run", "train", "-p", f"template={template}", "-p", "hyperparameters.steps=2"
    )

    found = _complete(stack, started["flow_run_id"])

    assert found["parameters"]["template"] == template
    assert found["parameters"]["hyperparameters"] == {"steps": 2, "rate": 0.5}
    assert found["parameters"]["max_minutes"] == 5
    assert found["result"]["metrics"] == {"loss": 0.5}


def test_what_is_given_counts_also_if_it_is_the_default(stack, template):
    started = stack.do(
        "run", "train", "-p", f"template={template}", "-p", "max_minutes=null", "-p", "metrics=[]"
    )

    found = _complete(stack, started["flow_run_id"])

    assert found["parameters"].get("max_minutes") is None
    assert found["result"]["metrics"] == {}


def test_from_python(stack, template):
    printed = stack.execute(
        "import json\nfrom flows.training import train\n"
        f"print(json.dumps(train(template={template!r}, name='template in python')))"
    )

    assert json.loads(printed.splitlines()[-1])["metrics"] == {"loss": 0.3333}


def test_from_a_form(stack, template):
    """The UI posts every field of its form: those that nobody touched with their defaults."""
    deployment = stack.prefect("deployments/name/train/train")
    schema = deployment["parameter_openapi_schema"]
    form = {name: field["default"] for name, field in schema["properties"].items()
            if field.get("default") is not None}  # fmt: skip
    form |= {"template": template, "hyperparameters": {"steps": 4}}
    run = stack.prefect(f"deployments/{deployment['id']}/create_flow_run", {"parameters": form})

    found = _complete(stack, run["id"])

    assert found["result"]["metrics"] == {"loss": 0.25}
    assert found["parameters"]["algorithm"]["uri"] == str(ALGORITHMS)
    assert found["parameters"]["hyperparameters"] == {"steps": 4, "rate": 0.5}

    copied = stack.do("runs", "copy", run["id"], "-p", "hyperparameters.steps=5")
    assert _complete(stack, copied["flow_run_id"])["result"]["metrics"] == {"loss": 0.2}
