from __future__ import annotations

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.errors import BadInputError
from tests.soaking import examples
from tests.tuning.katib.written import changed, one_parameter, refused, text
from tuning import katib


@pytest.mark.parametrize(
    "changes",
    [
        {"nasConfig": {"graphConfig": {"numLayers": "8"}}},
        {"algorithm": {"algorithmName": "darts"}},
        {"algorithm": {"algorithmName": "enas"}, "parameters": None},
    ],
)
def test_a_search_for_architectures_is_refused(changes: dict[str, Any]) -> None:
    assert refused(changed(**changes)).code == "KatibNas"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"parameters": None}, "spec.parameters"),
        ({"parameters": []}, "spec.parameters"),
        ({"parameters": [{"parameterType": "int"}]}, "spec.parameters[0].name"),
        ({"parameters": [{"name": "a"}]}, "spec.parameters[0].parameterType"),
        ({"objective": None}, "spec.objective.objectiveMetricName"),
        ({"objective": {"objectiveMetricName": "loss"}}, "spec.objective.type"),
        ({"algorithm": None}, "spec.algorithm.algorithmName"),
        ({"algorithm": {"algorithmName": ""}}, "spec.algorithm.algorithmName"),
        ({"trialTemplate": None}, "spec.trialTemplate.trialSpec"),
        ({"trialTemplate": {"configMap": {}}}, "spec.trialTemplate.trialSpec"),
        ({"trialTemplate": {"trialParameters": [{}]}},
         "spec.trialTemplate.trialParameters[0].name"),
    ],
)  # fmt: skip
def test_a_field_that_is_missing_is_named(changes: dict[str, Any], where: str) -> None:
    error = refused(changed(**changes))

    assert error.code == "KatibFieldMissing"
    assert f"has no {where}." in error.message


def test_an_experiment_without_a_name_is_refused() -> None:
    assert refused(text("random").replace("  name: flowers-random\n", "")).code == (
        "KatibFieldMissing"
    )


_OBJECTIVE = {"type": "minimize", "objectiveMetricName": "loss"}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"objective": []}, "spec.objective"),
        ({"objective": [1]}, "spec.objective"),
        ({"objective": "loss"}, "spec.objective"),
        ({"objective": {**_OBJECTIVE, "type": "lower"}}, "spec.objective.type"),
        ({"objective": {**_OBJECTIVE, "goal": "low"}}, "spec.objective.goal"),
        ({"objective": {**_OBJECTIVE, "goal": ".inf"}}, "spec.objective.goal"),
        ({"objective": {**_OBJECTIVE, "goal": "1e999"}}, "spec.objective.goal"),
        ({"objective": {**_OBJECTIVE, "additionalMetricNames": "a"}},
         "spec.objective.additionalMetricNames"),
        ({"objective": {**_OBJECTIVE, "additionalMetricNames": [["a"]]}},
         "spec.objective.additionalMetricNames[0]"),
        ({"objective": {**_OBJECTIVE, "metricStrategies": [{"name": "loss", "value": "mean"}]}},
         "spec.objective.metricStrategies[0].value"),
        ({"metricsCollectorSpec": {"collector": {"kind": "Pull"}}},
         "spec.metricsCollectorSpec.collector.kind"),
        ({"maxTrialCount": 0}, "spec.maxTrialCount"),
        ({"maxTrialCount": "1.5"}, "spec.maxTrialCount"),
        ({"maxTrialCount": "9" * 5000}, "spec.maxTrialCount"),
        ({"parallelTrialCount": 0}, "spec.parallelTrialCount"),
        ({"maxFailedTrialCount": -1}, "spec.maxFailedTrialCount"),
        ({"parameters": ["lr"]}, "spec.parameters[0]"),
        ({"parameters": [{"name": ["a"], "parameterType": "int"}]}, "spec.parameters[0].name"),
        ({"parameters": [{"name": "a", "parameterType": "unknown"}]},
         "spec.parameters[0].parameterType"),
        ({"earlyStopping": {"algorithmName": "medianstop", "algorithmSettings": [
            {"name": "start_step", "value": "0"}]}},
         "spec.earlyStopping.algorithmSettings[0].value"),
        ({"algorithm": {"algorithmName": "random", "algorithmSettings": [
            {"name": "random_state", "value": "x"}]}},
         "spec.algorithm.algorithmSettings[0].value"),
    ],
)  # fmt: skip
def test_a_field_that_holds_what_it_cannot_is_named(changes: dict[str, Any], where: str) -> None:
    error = refused(changed(**changes))

    assert error.code == "KatibFieldInvalid"
    assert error.message.startswith(f"{where} ")


@pytest.mark.parametrize(
    ("space_", "code"),
    [
        ({"min": "low", "max": "1"}, "KatibFieldInvalid"),
        ({"min": "0x1", "max": "1"}, "KatibFieldInvalid"),
        ({"min": "nan", "max": "1"}, "KatibFieldInvalid"),
        ({"min": "0", "max": "1", "distribution": "beta"}, "KatibFieldInvalid"),
        ({"min": "0", "max": "1", "list": ["1"]}, "KatibFieldInvalid"),
        ({"kind": "int", "min": "0.5", "max": "1"}, "KatibFieldInvalid"),
        ({"kind": "categorical", "list": ["a"], "step": "1"}, "KatibFieldInvalid"),
        ({"max": "1"}, "ParameterRangeMissing"),
        ({"min": "2", "max": "1"}, "ParameterRangeEmpty"),
        ({"kind": "categorical"}, "ParameterValuesMissing"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(space_: dict[str, Any], code: str) -> None:
    assert refused(one_parameter(**space_)).code == code


def test_a_grid_without_a_step_is_refused() -> None:
    without = text("grid").replace('        step: "0.05"\n', "")

    assert refused(without).code == "ParameterStepMissing"


def test_two_parameters_of_one_name_are_refused() -> None:
    one = {"name": "a", "parameterType": "int", "feasibleSpace": {"min": "0", "max": "1"}}

    assert refused(changed(parameters=[one, one])).code == "ParameterTwice"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "value", "list", "min", "image", "spec", "command", "replicas", "kind",
                 "env", "trainer", "limits", "resources", "xReplicaSpecs", "containers"]
            ),
            inner,
            max_size=4,
        ),
        max_leaves=12,
    ),
    st.sampled_from(
        ["objective", "algorithm", "parameters", "trialTemplate", "earlyStopping", "maxTrialCount",
         "metricsCollectorSpec", "resumePolicy", "trialSpec"]
    ),
)  # fmt: skip
@hypothesis_settings(database=None, max_examples=examples(300), deadline=None)
def test_whatever_stands_there_is_read_or_refused(value: Any, where: str) -> None:
    if where == "trialSpec":
        template = yaml.safe_load(text("random"))["spec"]["trialTemplate"]
        experiment = changed(trialTemplate={**template, "trialSpec": value})
    else:
        experiment = changed(**{where: value}) if value is not None else changed()
    with contextlib.suppress(BadInputError):
        assert katib.read(experiment).parameters["parameters"]
