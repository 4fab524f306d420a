"""What a task is given of what its DAG was given."""

from __future__ import annotations

from typing import Any

import pytest
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines import resolution
from pipelines.artifacts import Bundle

_B = 'parseJson(string_value)["b"]'


def given(name: str, selector: str, value: Any) -> Any:
    """What a task is given that asks for a field of an input of its DAG."""
    task, component = ir.PipelineTaskSpec(), ir.ComponentSpec()
    task.inputs.parameters["text"].component_input_parameter = name
    task.inputs.parameters["text"].parameter_expression_selector = selector
    text = ir.ParameterType.ParameterTypeEnum.STRING
    component.input_definitions.parameters["text"].parameter_type = text

    def fill(constant: Any, _: Any) -> Any:
        return constant

    found = resolution.inputs("say", task, component, Bundle({name: value}), {}, fill)
    return found.parameters["text"]


class TestFieldsOfItems:
    @pytest.mark.parametrize("value", ["2", '{"b": "3"}', "no JSON"])
    def test_a_field_that_is_asked_for_twice_is_taken_once(self, value: str) -> None:
        assert given("channel--item-subvar-b", _B, value) == value

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("channel--item", {"a": "1", "b": "2"}),
            ("channel--item-subvar-a", {"b": "2"}),
            ("channel--item-subvar-b-loop-item", {"b": "2"}),
        ],
    )
    def test_any_other_is_taken(self, name: str, value: Any) -> None:
        assert given(name, _B, value) == "2"
