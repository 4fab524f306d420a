"""What a run asks of a cluster: the shape and number of its pods, and what they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from infra import instance_types, settings, site
from infra.instance_types import InstanceType
from infra.kubernetes import capacity
from infra.kubernetes.capacity import Capacity
from infra.kubernetes.wanted import EVERY_MOUNT, Placement
from registry import pipeline_nodes, tunings
from tasks import parameters, resources, training_templates, tuning_request
from tasks.pipelines.request import PipelineRun
from tasks.resources import Resources
from tasks.training_request import Training
from tasks.tuning_request import Tuning

TRAIN = "train"


def of(flow: str, given: Mapping[str, Any], *, checked: bool = True) -> Placement:
    """What a run of ``flow`` with these parameters asks of a cluster.

    Args:
        flow: The flow's name.
        given: The run's parameters.
        checked: Whether they were completed when the run was made. A run that a form or a
            schedule has made completes them itself, too late for its own machine: what a
            template says of that is taken from it here as well.

    Raises:
        BadInputError: If a parameter that counts here is wrong, with the code that the run would
            have refused it with.
        NotFoundError: If there is no such template, with the code ``TemplateUnknown``.
    """
    if flow not in _FLOWS:
        return Placement(_small())
    model, complete, placed = _FLOWS[flow]
    return placed(parameters.read(model, dict(given) if checked else complete(given)))


@dataclass(frozen=True)
class Asked:
    """What one run asks of a cluster.

    Attributes:
        flow: Its flow's name.
        placement: What it asks for.
        type_name: What the shape of its nodes is called.
    """

    flow: str
    placement: Placement
    type_name: str = instance_types.DEFAULT


def asked(flow: str, given: Mapping[str, Any]) -> list[Asked]:
    """What a run, and each of the runs that it makes of other flows, asks of a cluster.

    Args:
        flow: The flow's name.
        given: The run's parameters, complete.

    Raises:
        BadInputError: As :func:`of` does.
    """
    if flow == TRAIN:
        training = parameters.read(Training, dict(given))
        return [Asked(flow, _of_training(training), _type_of(training))]
    if flow != tunings.FLOW:
        return [Asked(flow, of(flow, given))]
    tuning = parameters.read(Tuning, dict(given))
    if _is_inline(tuning):
        at_once = f"{tuning.parallel_trials} trials of {_type_of(tuning)} at once"
        return [Asked(flow, _of_tuning(tuning), at_once)]
    trial = tuning.training({})
    return [Asked(flow, _of_tuning(tuning)), Asked(TRAIN, _of_training(trial), _type_of(trial))]


def settled(wanted: Asked, there: Capacity) -> Placement:
    """What a run gets of a cluster: what it asks for; without GPUs where it may and none are.

    Raises:
        ClusterError: If the cluster can never give it, with the numbers.
    """
    placed = wanted.placement
    found = capacity.refusal(placed, wanted.type_name, there)
    if found and found.code == "NodesLackGpu" and placed.allow_cpu:
        placed = replace(placed, shape=capacity.without_gpus(placed.shape))
        found = capacity.refusal(placed, wanted.type_name, there)
    if found:
        raise found
    return placed


def _type_of(training: Training) -> str:
    return training.resources.instance_type or instance_types.DEFAULT


def _small() -> InstanceType:
    """The shape of what only has others work."""
    return instance_types.find(instance_types.DEFAULT, settings.load())


def _of_training(training: Training) -> Placement:
    asks = training.resources
    shape = instance_types.find(asks.instance_type, settings.load())
    return _with_scripts(training, shape, nodes=asks.nodes)


def _of_tuning(tuning: Tuning) -> Placement:
    """One whose trials have pods of their own is small; else its pod holds those that go on."""
    if not _is_inline(tuning):
        mounts = _mounts(tuning, tuning.resources)
        return Placement(_small(), mounts=mounts, seconds=_seconds(tuning))
    return _with_scripts(tuning, _together(tuning))


def _with_scripts(request: Training, shape: InstanceType, nodes: int = 1) -> Placement:
    """Where scripts run in the run's own pods, which then have what it asks for."""
    asks = request.resources
    return Placement(
        shape=shape,
        nodes=nodes,
        image=asks.image,
        boot_storage_gib=asks.boot_storage_gib,
        data_storage_gib=asks.data_storage_gib,
        mounts=_mounts(request, asks),
        seconds=_seconds(request),
        allow_cpu=asks.allow_cpu,
    )


def _is_inline(tuning: Tuning) -> bool:
    """Whether trials run beside the tuning; on a cluster they do so only where it says so."""
    return tuning.dispatch == "inline"


def _together(tuning: Tuning) -> InstanceType:
    """The shape that holds as many trials as go on at once, with all their nodes.

    GPUs are each trial's own, as on any machine, unless the trials share them.
    """
    asks = tuning.resources
    each = instance_types.find(asks.instance_type, settings.load())
    times = tuning.parallel_trials * asks.nodes
    shared = each.shared_memory_gib
    return each.model_copy(
        update={
            "cpu": each.cpu * times,
            "memory_gib": each.memory_gib * times,
            "gpus": each.gpus * (asks.nodes if asks.share_gpus else times),
            "shared_memory_gib": None if shared is None else shared * times,
        }
    )


def _of_pipeline(run: PipelineRun) -> Placement:
    """A pipeline's components have pods of their own: what has them run is small.

    It has every NAS of the cluster, for files may be staged on one.
    """
    return Placement(_small(), mounts=(EVERY_MOUNT, *_mounts(run, None)), makes_jobs=True)


def _seconds(training: Training) -> float | None:
    return None if training.max_minutes is None else training.max_minutes * 60


def _mounts(request: BaseModel, asks: Resources | None) -> tuple[str, ...]:
    """The network folders that a run says it has, and those that it names anywhere."""
    said = resources.mount_ids(asks.mounts) if asks else []
    named = filter(None, map(site.nas_id, _uris(request.model_dump(mode="json"))))
    return tuple(sorted({*said, *named}))


def _uris(value: Any, field: str = "") -> Iterator[str]:
    """Every text in a field that is called uri, or ends so; in groups and lists as well."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _uris(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _uris(inner, field)
    elif isinstance(value, str) and field.endswith("uri"):
        yield value


# Of each flow: its parameters, what completes those of a form, and what they ask for.
_FLOWS: dict[
    str,
    tuple[
        type[BaseModel], Callable[[Mapping[str, Any]], dict[str, Any]], Callable[[Any], Placement]
    ],
] = {
    TRAIN: (
        Training,
        lambda given: training_templates.fill(given, training_templates.default_of(Training)),
        _of_training,
    ),
    tunings.FLOW: (
        Tuning,
        lambda given: tuning_request.fill(given, training_templates.default_of(Tuning)),
        _of_tuning,
    ),
    pipeline_nodes.FLOW: (PipelineRun, dict, _of_pipeline),
}
