"""Conversion of the IR's containers to workloads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError
from infra.workloads.base import ResourceRequest, Workload
from pipelines import placeholders

Container: TypeAlias = ir.PipelineDeploymentConfig.PipelineContainerSpec
ResourceSpec: TypeAlias = ir.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec

_QUANTITY = re.compile(
    r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?:[eE](?P<exponent>[+-]?\d{1,2})|(?P<suffix>[a-zA-Z]{1,2}))?"
)
_SUFFIXES = {
    "n": Decimal(10) ** -9,
    "u": Decimal(10) ** -6,
    "m": Decimal(10) ** -3,
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}
_GIGA = 10**9
_UNKNOWN = re.compile(r"\{\{\$|^\s*\{\s*\"")  # a placeholder, or words that depend on inputs
_MOST_ACCELERATORS = 4096


def workload(
    container: Container,
    context: placeholders.PlaceholderContext,
    *,
    name: str,
    folder: Path,
    inputs: Sequence[Path] = (),
    outputs: Sequence[Path] = (),
    kubernetes: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> Workload:
    """Build the workload of a container, with every placeholder filled.

    Args:
        container: The executor's container.
        context: What its placeholders mean.
        name: The task's path in its run.
        folder: The task's own folder.
        inputs: Local paths that it reads.
        outputs: Local paths that it writes.
        kubernetes: The settings of Kubernetes, resolved.
        seconds: Its time limit; None for none.

    Raises:
        BadInputError: If a placeholder or a resource cannot be understood.
    """

    def filled(text: str) -> str:
        return "".join(placeholders.fill([text], context)) if text else ""

    return Workload(
        name=name,
        image=filled(container.image),
        command=tuple(placeholders.fill(list(container.command), context)),
        arguments=tuple(placeholders.fill(list(container.args), context)),
        folder=folder,
        environment={one.name: filled(one.value) for one in container.env},
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        resources=_resources(name, container.resources, filled),
        kubernetes=kubernetes or {},
        seconds=seconds,
    )


def preview(container: Container, *, name: str, folder: Path) -> Workload | None:
    """Build the workload of a container before the run, without filling its arguments.

    Args:
        container: The executor's container.
        name: The task's path in its run.
        folder: The task's own folder.

    Returns:
        None where its image, its program or its resources are only known in the run.

    Raises:
        BadInputError: If a resource cannot be understood.
    """
    words = [*container.command, *container.args]
    decisive = [container.image, *words[:2], str(container.resources)]
    if any(_UNKNOWN.search(text) for text in decisive):
        return None
    resources = _resources(name, container.resources, str)
    command, arguments = tuple(container.command), tuple(container.args)
    return Workload(name, container.image, command, arguments, folder, resources=resources)


def _resources(name: str, asked: ResourceSpec, filled: Any) -> ResourceRequest:
    def number(text: str, old: float, what: str) -> float:
        text = filled(text).strip()
        return quantity(text, f"the {what} of {name}") if text else old

    accelerator = asked.accelerator
    kind = filled(accelerator.resource_type or accelerator.type)
    count = number(accelerator.resource_count, float(accelerator.count), "accelerator count")
    if count != int(count) or count > _MOST_ACCELERATORS:
        raise _wrong(f"the accelerator count of {name}", f"{count:g}", "a whole number of them")
    return ResourceRequest(
        cpu=number(asked.resource_cpu_limit, asked.cpu_limit, "CPU limit"),
        memory=round(
            number(asked.resource_memory_limit, asked.memory_limit * _GIGA, "memory limit")
        ),
        accelerator=kind if count else "",
        accelerators=int(count),
        cpu_request=number(asked.resource_cpu_request, asked.cpu_request, "CPU request"),
        memory_request=round(
            number(asked.resource_memory_request, asked.memory_request * _GIGA, "memory request")
        ),
    )


def quantity(text: str, place: str = "the quantity") -> float:
    """Parse a Kubernetes quantity: ``500m``, ``1.5``, ``2Gi``, ``1e3``.

    Raises:
        BadInputError: With the code ``QuantityInvalid``.
    """
    found = _QUANTITY.fullmatch(text.strip())
    suffix = found["suffix"] if found else None
    # E alone is the suffix of 10^18, and before digits an exponent.
    if found is None or (suffix is not None and suffix not in _SUFFIXES):
        raise _wrong(place, text, "a quantity such as 500m, 1.5, 2G or 2Gi")
    factor = _SUFFIXES[suffix] if suffix else Decimal(10) ** int(found["exponent"] or 0)
    return float(Decimal(found["number"]) * factor)


def _wrong(place: str, text: str, wanted: str) -> BadInputError:
    return BadInputError(
        f"{place[:1].upper()}{place[1:]} is {text!r}, which is not {wanted}.",
        "Write it as Kubernetes does, such as 500m for half a core or 2Gi for memory.",
        code="QuantityInvalid",
    )
