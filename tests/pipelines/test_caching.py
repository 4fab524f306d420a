"""Fingerprints: what makes two tasks equal, and what does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from pipelines import caching
from pipelines.artifacts import Artifact, Bundle
from tests.pipelines.mutating import loaded, read, set_at

_EXECUTOR = "deploymentSpec/executors/exec-add/container"
_DATA = Artifact("write/data", "/runs/1/write/data", "system.Dataset", "0.0.1", {"length": 3})
_INPUTS = Bundle({"a": 1, "b": [1, {"c": None}]}, {"data": _DATA, "many": [_DATA]})


def fingerprint(
    *changes: Callable[[dict[str, Any]], None], inputs: Bundle = _INPUTS, **told: Any
) -> str:
    documents = copy.deepcopy(loaded("adding"))
    for change in changes:
        change(documents[0])
    return caching.fingerprint(read(documents), "comp-add", inputs, **told)


@pytest.mark.parametrize(
    "change",
    [
        set_at(f"{_EXECUTOR}/image", "python:3.12"),
        set_at(f"{_EXECUTOR}/env", [{"name": "A", "value": "b"}]),
        set_at(f"{_EXECUTOR}/resources", {"cpuLimit": 2.0}),
        set_at(f"{_EXECUTOR}/args/3", "subtract"),
        set_at("components/comp-add/outputDefinitions/parameters/Output/parameterType", "STRING"),
    ],
)
def test_what_runs_counts(change: Callable[[dict[str, Any]], None]) -> None:
    assert fingerprint(change) != fingerprint()


@pytest.mark.parametrize(
    "inputs",
    [
        Bundle({"a": 2, "b": [1, {"c": None}]}, _INPUTS.artifacts),
        Bundle({"a": "1", "b": [1, {"c": None}]}, _INPUTS.artifacts),
        Bundle(_INPUTS.parameters, {"data": _DATA}),
        Bundle(_INPUTS.parameters, {"data": [_DATA], "many": [_DATA]}),
        Bundle(_INPUTS.parameters, {"data": Artifact("n", "/else"), "many": [_DATA]}),
    ],
)
def test_what_it_is_given_counts(inputs: Bundle) -> None:
    assert fingerprint(inputs=inputs) != fingerprint()


@pytest.mark.parametrize(("one", "other"), [(1.0, 1), ([1.0], [1]), ({"a": [2.0]}, {"a": [2]})])
def test_equal_numbers_are_equal_however_they_are_written(one: Any, other: Any) -> None:
    given = [fingerprint(inputs=Bundle({"a": value})) for value in (one, other)]

    assert given[0] == given[1]
    assert given[0] != fingerprint(inputs=Bundle({"a": True}))
    assert given[0] != fingerprint(inputs=Bundle({"a": 1.5}))


def test_settings_of_the_platform_count() -> None:
    settings = {"secretAsEnv": [{"secretName": "s"}]}

    assert fingerprint(settings=settings) != fingerprint()


def test_which_pipeline_it_is_in_makes_no_difference() -> None:
    other = set_at("pipelineInfo/name", "other")
    renamed = set_at("root/dag/tasks/add/taskInfo/name", "sum")

    assert fingerprint(other, renamed) == fingerprint()
    turned = Bundle(dict(reversed(_INPUTS.parameters.items())), _INPUTS.artifacts)
    assert fingerprint(inputs=turned) == fingerprint()


def test_nothing_counts_but_a_key_of_the_pipeline_s_own() -> None:
    assert fingerprint(inputs=Bundle(), key="mine") == fingerprint(key="mine")
    assert fingerprint(key="mine") not in {fingerprint(key="other"), fingerprint()}


def test_what_is_kept_is_what_was_handed_on() -> None:
    assert caching.from_data(caching.as_data(_INPUTS)) == _INPUTS
    assert caching.from_data({}) == Bundle()
