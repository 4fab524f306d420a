"""The forms of the flows, against golden files: what people and the API may rely on.

After a change that is meant, write them anew: ``WRITE_GOLDEN=1 pytest`` this file.
"""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from flows import catalogue, forms
from flows.lifecycle import LifecycleFlow
from flows.training import train
from flows.tuning import tune
from tasks.parameters import FlowRequest, form_fields
from tasks.training.training_request import Algorithm
from tasks.tuning.tuning_request import Tuning
from tuning.objectives import Objective

GOLDEN = Path(__file__).parent / "forms"


@pytest.fixture(params=catalogue.load_all(), ids=lambda flow: str(flow.name))
def flow(request: pytest.FixtureRequest) -> LifecycleFlow[..., Any]:
    found: LifecycleFlow[..., Any] = request.param
    return found


def test_a_form_is_the_same_as_ever(flow: LifecycleFlow[..., Any]) -> None:
    file = GOLDEN / f"{flow.name}.json"
    found = flow.form
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")

    assert found == json.loads(file.read_text())


def test_every_field_has_a_help_text_a_title_and_a_position(flow: LifecycleFlow[..., Any]) -> None:
    fields = flow.form["properties"]

    assert list(fields) == list(form_fields(flow.model))
    for position, (name, field) in enumerate(fields.items()):
        assert (field["title"], field["position"]) == (name, position)
        help_text = flow.model.model_fields[name].description or ""
        empty = f" Empty for the template's, or else {flow.model.model_fields[name].default}."
        begins_empty = name in flow.spec.templated and name == "experiment"
        assert field["description"] == help_text + (empty if begins_empty else "")


def test_a_field_that_a_template_may_have_begins_empty() -> None:
    """So what is in it was chosen; but a switch cannot be empty."""
    plain, form = forms.schema(train.fn), train.form
    for one in (plain, form):
        one["properties"] |= one["definitions"]["Resources"]["properties"]

    changed = {
        name: (field["default"], form["properties"][name].get("default"))
        for name, field in plain["properties"].items()
        if field.get("default") != form["properties"][name].get("default")
    }
    assert changed == {
        "experiment": ("Default", None), "nodes": (1, None), "processes_per_node": (1, None),
        "boot_storage_gib": (0, None), "data_storage_gib": (0, None),
        "model": ({"name": "", "register": "always"}, {"name": ""}),
        "resources": (plain["properties"]["resources"]["default"], {
            "allow_cpu": False, "image": "", "instance_type": "", "mounts": [],
            "share_gpus": False, "torchrun": False,
        }),
    }  # fmt: skip
    nodes = form["properties"]["nodes"]["description"]
    assert nodes == "Number of machines of the run. Empty for the template's, or else 1."
    assert tune.form["properties"]["parallel_trials"]["default"] == 1  # no template has it


def test_the_order_of_a_form_has_every_field_of_its_model(flow: LifecycleFlow[..., Any]) -> None:
    assert sorted(form_fields(flow.model)) == sorted(flow.model.model_fields)


def test_the_function_of_a_flow_has_the_models_signature() -> None:
    found = inspect.signature(catalogue.find("tune").fn).parameters

    assert list(found) == list(Tuning.FORM_ORDER)
    assert found["max_trials"].default is None
    assert found["experiment"].default == "Default"


def test_what_is_required_comes_first() -> None:
    """Python allows no parameter without a default after one with a default."""

    class Named(FlowRequest):
        name: str = Field("", description="Its name.")
        uri: str = Field(description="What is read.")

    assert list(forms.signature(Named).parameters) == ["uri", "name"]


def test_positional_arguments_are_in_the_order_of_the_form() -> None:
    found = forms.bound(Tuning, ("n", "about", "Default", "", "grid"), {"seed": 1, "odd": 2})

    assert found == {
        "name": "n", "description": "about", "experiment": "Default", "template": "",
        "strategy": "grid", "seed": 1, "odd": 2,
    }  # fmt: skip


def test_groups_may_be_instances_of_their_models() -> None:
    given = forms.bound(
        Tuning,
        ("named",),
        {
            "algorithm": Algorithm(uri="here"),
            "objective": [Objective(metric="loss", direction="minimize"), {"metric": "other"}],
            "resources": {"nodes": 2},
        },
    )

    assert given == {
        "name": "named",
        # Without fields that were not given: a template's would count less than their defaults.
        "algorithm": {"uri": "here"},
        "objective": [{"metric": "loss", "direction": "minimize"}, {"metric": "other"}],
        "resources": {"nodes": 2},
    }
