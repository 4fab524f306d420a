from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadInputError
from infra.workloads.base import ResourceRequest, Workload
from pipelines import container
from pipelines.placeholders import PlaceholderContext


def _job(spec: dict[str, Any], **parameters: Any) -> Workload:
    return container.workload(
        json_format.ParseDict(spec, container.Container()),
        PlaceholderContext(parameters=parameters, executor_input=lambda: "{told}"),
        name="loop/3/train",
        folder=Path("/folder"),
        inputs=[Path("/in")],
        outputs=[Path("/out")],
        kubernetes={"tolerations": []},
        seconds=5,
    )


def test_the_words_are_filled() -> None:
    job = _job(
        {
            "image": "python:{{$.inputs.parameters['version']}}",
            "command": ["sh", "-c", 'echo "$0"', "{{$.inputs.parameters['text']}}"],
            "args": [
                "--input",
                "{{$}}",
                '{"IfPresent": {"InputName": "gone", "Then": ["a"], "Else": ["b", "c"]}}',
            ],
            "env": [
                {"name": "PLAIN", "value": "word"},
                {"name": "FILLED", "value": "is {{$.inputs.parameters['text']}}"},
                {"name": "EMPTY"},
            ],
        },
        version="3.11",
        text="{{$.inputs.parameters['version']}}",
    )

    text = "{{$.inputs.parameters['version']}}"
    assert job == Workload(
        name="loop/3/train",
        image="python:3.11",
        command=("sh", "-c", 'echo "$0"', text),
        arguments=("--input", "{told}", "b", "c"),
        folder=Path("/folder"),
        environment={"PLAIN": "word", "FILLED": f"is {text}", "EMPTY": ""},
        inputs=(Path("/in"),),
        outputs=(Path("/out"),),
        resources=ResourceRequest(),
        kubernetes={"tolerations": []},
        seconds=5,
    )


def test_resources_as_texts() -> None:
    asked = {
        "cpuLimit": 7.0,
        "memoryLimit": 7.0,
        "resourceCpuLimit": "{{$.inputs.parameters['cpu']}}",
        "resourceMemoryLimit": "{{$.inputs.parameters['memory']}}",
        "resourceCpuRequest": "250m",
        "resourceMemoryRequest": "1e3",
        "accelerator": {
            "type": "old",
            "count": "9",
            "resourceType": "{{$.inputs.parameters['kind']}}",
            "resourceCount": "{{$.inputs.parameters['count']}}",
        },
    }
    job = _job(
        {"image": "x", "resources": asked}, cpu="1.5", memory="2Gi", kind="nvidia.com/gpu", count=2
    )

    assert job.resources == ResourceRequest(
        cpu=1.5,
        memory=2**31,
        accelerator="nvidia.com/gpu",
        accelerators=2,
        cpu_request=0.25,
        memory_request=1000,
    )


def test_resources_as_numbers() -> None:
    asked = {
        "cpuLimit": 0.5,
        "memoryLimit": 1.073741824,
        "cpuRequest": 0.25,
        "memoryRequest": 0.5,
        "accelerator": {"type": "NVIDIA_TESLA_K80", "count": "1"},
    }
    assert _job({"image": "x", "resources": asked}).resources == ResourceRequest(
        cpu=0.5,
        memory=2**30,
        accelerator="NVIDIA_TESLA_K80",
        accelerators=1,
        cpu_request=0.25,
        memory_request=500_000_000,
    )


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"resourceCpuLimit": "many"}, "The CPU limit of loop/3/train is 'many'"),
        ({"resourceMemoryLimit": "1GiB"}, "The memory limit of loop/3/train is '1GiB'"),
        ({"resourceCpuRequest": "-1"}, "The CPU request"),
        ({"resourceMemoryRequest": "1 Gi"}, "The memory request"),
        ({"accelerator": {"resourceCount": "1.5"}}, "The accelerator count of loop/3/train is"),
        ({"accelerator": {"resourceCount": "1e9"}}, "The accelerator count"),
    ],
)
def test_what_is_no_quantity_is_refused(asked: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInputError, match=what) as caught:
        _job({"image": "x", "resources": asked})
    assert caught.value.code == "QuantityInvalid"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("1", 1), ("1.5", 1.5), (".5", 0.5), ("2.", 2), ("500m", 0.5), ("100u", 1e-4),
        ("1n", 1e-9), ("1k", 1000), ("1Ki", 1024), ("2M", 2e6), ("2Mi", 2**21), ("3G", 3e9),
        ("3Gi", 3 * 2**30), ("1T", 1e12), ("1Ti", 2**40), ("1P", 1e15), ("1Pi", 2**50),
        ("1E", 1e18), ("1Ei", 2**60), ("1e3", 1000), ("1E3", 1000), ("1.5e-1", 0.15),
        (" 1Gi ", 2**30), ("0.1", 0.1),
    ],
)  # fmt: skip
def test_quantities(text: str, value: float) -> None:
    assert container.quantity(text) == value


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_is_refused(text: str) -> None:
    try:
        assert container.quantity(text) >= 0
    except BadInputError as error:
        assert error.code == "QuantityInvalid"  # noqa: PT017
