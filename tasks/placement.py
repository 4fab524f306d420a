"""The machines that a run asks a cluster for: shape and number of its pods, their mounts."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from infra import instance_types, settings, site
from infra.instance_types import InstanceType
from infra.kubernetes import capacity
from infra.kubernetes.attempt_spec import EVERY_MOUNT, Placement
from infra.kubernetes.capacity import Capacity
from registry.flow_kinds import PIPELINE_RUN, TRAIN, TUNE
from tasks import parameters, resources

if TYPE_CHECKING:
    from tasks.pipelines.request import PipelineRun
    from tasks.resources import Resources
    from tasks.training.training_request import Training
    from tasks.tuning.tuning_request import Tuning


def of(flow: str, given: Mapping[str, Any], *, checked: bool = True) -> Placement:
    """The machines that a run asks a cluster for.

    Args:
        flow: The flow's name.
        given: The run's parameters.
        checked: Whether they were completed when the run was created. A run of a form or a
            schedule completes them itself, after its machine was chosen: its template is read
            here as well.

    Raises:
        BadInputError: If a parameter that counts here is wrong, with the code of the run's own
            refusal.
        NotFoundError: If there is no such template, with the code ``TemplateUnknown``.
    """
    if not checked and flow in _FROM_TEMPLATE:
        given = pkgutil.resolve_name(_FROM_TEMPLATE[flow])(given, True)
    return asked(flow, given)[0].placement


@dataclass(frozen=True)
class Asked:
    """The machines that one run asks for.

    Attributes:
        flow: Its flow's name.
        placement: The machines.
        type_name: The name of their shape, as people know it.
    """

    flow: str
    placement: Placement
    type_name: str = instance_types.DEFAULT


def asked(flow: str, given: Mapping[str, Any]) -> list[Asked]:
    """The machines that a run, and each of the runs that it makes, asks a cluster for.

    Args:
        flow: The flow's name.
        given: The run's parameters, complete.

    Raises:
        BadInputError: As for :func:`of`.
    """
    if flow not in _MACHINES:
        return [Asked(flow, Placement(_small()))]
    request, machines = _MACHINES[flow]
    return machines(parameters.read(pkgutil.resolve_name(request), dict(given)))


def _of_training(training: Training) -> list[Asked]:
    """The machines of a training."""
    asks = training.resources
    shape = instance_types.find(asks.instance_type, settings.load())
    placed = _with_scripts(training, shape, nodes=asks.nodes)
    return [Asked(TRAIN.name, placed, _type_of(training))]


def _of_tuning(tuning: Tuning) -> list[Asked]:
    """The machines of a tuning, and of its trials where they are runs of their own.

    A tuning whose trials have pods of their own is small; else its pod holds those at once.
    """
    if _is_inline(tuning):
        at_once = f"{tuning.parallel_trials} trials of {_type_of(tuning)} at once"
        return [Asked(TUNE.name, _with_scripts(tuning, _together(tuning)), at_once)]
    own = Placement(_small(), mounts=_mounts(tuning, tuning.resources), seconds=_seconds(tuning))
    return [Asked(TUNE.name, own), *_of_training(tuning.training({}))]


def _of_pipeline(run: PipelineRun) -> list[Asked]:
    """The machine of a pipeline run, which is small: its components have pods of their own.

    It mounts every NAS of the cluster, for files may be staged on one.
    """
    mounts = (EVERY_MOUNT, *_mounts(run, None))
    return [Asked(PIPELINE_RUN.name, Placement(_small(), mounts=mounts, makes_jobs=True))]


def _small() -> InstanceType:
    """The shape of a run that leaves the heavy work to others."""
    return instance_types.find(instance_types.DEFAULT, settings.load())


def settled(wanted: Asked, there: Capacity) -> Placement:
    """What a run gets of a cluster: what it asks for; without GPUs where it may and none are.

    Raises:
        ClusterError: If the cluster can never give it, with the numbers.
    """
    placed = wanted.placement
    found = capacity.find_shortage(placed, wanted.type_name, there)
    if found and found.code == "NodesLackGpu" and placed.allow_cpu:
        placed = replace(placed, shape=capacity.without_gpus(placed.shape))
        found = capacity.find_shortage(placed, wanted.type_name, there)
    if found:
        raise found
    return placed


def _type_of(training: Training) -> str:
    return training.resources.instance_type or instance_types.DEFAULT


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


# Of each flow that asks for more than one small machine: its request, and the machines of one.
# They are here, below the flows, because the worker of a cluster places runs without importing
# the flows, whose libraries (scikit-learn, matplotlib, boto3) it has no use for. A request is
# imported when it is read: those of tunings and pipelines bring Optuna, SciPy and KFP along.
_MACHINES: dict[str, tuple[str, Callable[[Any], list[Asked]]]] = {
    TRAIN.name: ("tasks.training.training_request:Training", _of_training),
    TUNE.name: ("tasks.tuning.tuning_request:Tuning", _of_tuning),
    PIPELINE_RUN.name: ("tasks.pipelines.request:PipelineRun", _of_pipeline),
}

# Of each flow with templates: what completes the parameters of a run from its template.
_FROM_TEMPLATE = {
    TRAIN.name: "tasks.training.training_templates:from_template",
    TUNE.name: "tasks.tuning.tuning_request:from_template",
}
