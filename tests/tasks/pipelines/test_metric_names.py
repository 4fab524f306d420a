"""How metrics of pipelines are called in MLflow."""

from __future__ import annotations

import math

import pytest
from mlflow.utils import validation

from pipelines import reading
from pipelines.node_positions import NodePosition, NodePositions
from tasks.pipelines import metric_names
from tests.pipelines import corpus


@pytest.fixture
def places() -> NodePositions:
    return NodePositions(reading.read_bytes(corpus.compiled("shown"), "pipeline.yaml"))


def named(places: NodePositions, path: str, output: str) -> tuple[str, int]:
    return metric_names.prefix(places, places.of(path), path, output)


def test_iterations_are_steps_of_one_metric(places: NodePositions) -> None:
    assert named(places, "for-loop-1/2/fit", "scores") == ("fit", 2)


def test_the_output_is_named_where_there_are_several_with_metrics(places: NodePositions) -> None:
    assert named(places, "measure", "scores") == ("measure/scores", 0)
    assert named(places, "measure", "more") == ("measure/more", 0)


def test_the_groups_are_named_where_the_task_alone_is_not_clear(
    places: NodePositions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NodePositions, "times", lambda *_: 2)
    assert named(places, "for-loop-1/2/fit", "scores") == ("for-loop-1/fit", 2)


def test_the_numbers_of_outer_loops_are_in_the_name(places: NodePositions) -> None:
    fit = places.of("for-loop-1/0/fit")
    assert fit is not None
    deep = NodePosition("", False, (), ("outer", "inner", "fit"), (4, 7), fit.component)
    assert metric_names.prefix(places, deep, "", "scores") == ("fit/4", 7)


def test_a_task_that_is_not_in_the_pipeline_has_its_path_as_the_name(
    places: NodePositions,
) -> None:
    assert metric_names.prefix(places, None, "a/3/b", "out") == ("a/3/b/out", 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b-c_d e:f/g", "a.b-c_d e:f/g"),
        ("seconds %", "seconds _"),
        ("../up//here/./", "up/here"),
        ("정확도", "정확도"),
        ("", ""),
    ],
)
def test_a_name_is_spelt_so_that_mlflow_takes_it(name: str, expected: str) -> None:
    assert metric_names.sanitize(name) == expected
    if expected:
        validation._validate_metric_name(expected)


def test_long_names_are_cut_and_stay_different() -> None:
    one, other = (metric_names.sanitize("x" * 300 + end) for end in "ab")
    assert one != other
    assert len(one) == len(other) == 140


def test_finite_numbers_are_metrics_and_nothing_else_is() -> None:
    metadata = {
        "int": 3, "float": 0.5, "true": True, "text": "0.5", "none": None, "list": [1.0],
        "nan": math.nan, "inf": -math.inf, "huge": 10**400, "in": {"a": 1, "deeper": {"b": 2}},
    }  # fmt: skip
    assert metric_names.finite_numbers(metadata) == [
        ("int", 3.0), ("float", 0.5), ("in/a", 1.0), ("in/deeper/b", 2.0),
    ]  # fmt: skip


def test_keys_that_are_spelt_alike_stay_apart() -> None:
    assert metric_names.finite_numbers({"a%": 1, "a#": 2, "%": 3}) == [
        ("a_", 1.0),
        ("a__2", 2.0),
        ("_", 3.0),
    ]


def test_there_is_a_bound_on_how_many_there_are() -> None:
    assert len(metric_names.finite_numbers({str(n): n for n in range(5000)})) == metric_names.MOST
