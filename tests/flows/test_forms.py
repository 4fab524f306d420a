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
from tasks.parameters import FlowRequest
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
    found = forms.schema(flow.fn)
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")

    assert found == json.loads(file.read_text())


def test_every_field_has_a_help_text_a_title_and_a_position(flow: LifecycleFlow[..., Any]) -> None:
    fields = forms.schema(flow.fn)["properties"]

    assert list(fields) == list(forms.fields(flow.model))
    for position, (name, field) in enumerate(fields.items()):
        assert (field["title"], field["position"]) == (name, position)
        assert field["description"] == flow.model.model_fields[name].description


def test_the_order_of_a_form_has_every_field_of_its_model(flow: LifecycleFlow[..., Any]) -> None:
    assert sorted(forms.fields(flow.model)) == sorted(flow.model.model_fields)


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
