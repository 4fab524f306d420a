"""Placement of runs on a cluster: shape, number and mounts of the pods that they request."""

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
from registry.flow_kinds import BATCH_INFERENCE, EVALUATE, PIPELINE_RUN, TRAIN, TUNE
from tasks import flow_requests, parameters, resources
from tasks.batch_inference import pod_resources

if TYPE_CHECKING:
    from tasks.batch_inference.inference_request import BatchInference
    from tasks.evaluation.evaluation_request import Evaluation
    from tasks.pipelines.request import PipelineRun
    from tasks.resources import Resources
    from tasks.training.training_request import Training
    from tasks.tuning.tuning_request import Tuning


def plan(flow: str, given: Mapping[str, Any], *, checked: bool = True) -> Placement:
    """Plan the pods of a run.

    Args:
        flow: Name of the flow.
        given: Parameters of the run.
        checked: Whether they were completed when the run was created. A run of a form or a
            schedule completes them itself once it runs, so its template is applied here as well.

    Raises:
        BadInputError: If a parameter that affects the pods is invalid, with the code that the run
            itself would be refused with.
        NotFoundError: With the code ``TemplateUnknown``.
    """
    if not checked and flow in _FROM_TEMPLATE:
        given = pkgutil.resolve_name(_FROM_TEMPLATE[flow])(given, True)
    return plan_requests(flow, given)[0].placement


@dataclass(frozen=True)
class PlacementRequest:
    """Pods that one run requests.

    Attributes:
        flow: Name of its flow.
        placement: The pods.
        type_name: Name of their instance type, for messages.
    """

    flow: str
    placement: Placement
    type_name: str = instance_types.DEFAULT


def plan_requests(flow: str, given: Mapping[str, Any]) -> list[PlacementRequest]:
    """Plan the pods of a run, and of the runs that it creates.

    Args:
        flow: Name of the flow.
        given: Complete parameters of the run.

    Returns:
        The request of the run itself, and one for each kind of run that it creates.

    Raises:
        BadInputError: As for :func:`plan`.
    """
    if flow not in _PLANNERS:
        return [PlacementRequest(flow, _small_of(given))]
    return _PLANNERS[flow](parameters.read(flow_requests.find(flow), dict(given)))


def _of_training(training: Training) -> list[PlacementRequest]:
    """Request of a training."""
    requested = training.resources
    shape = instance_types.find(requested.instance_type, settings.load())
    placed = _with_scripts(training, shape, nodes=requested.nodes)
    return [PlacementRequest(TRAIN.name, placed, _type_of(training))]


def _of_batch_inference(request: BatchInference) -> list[PlacementRequest]:
    """Request of a batch inference, whose run is small, and of its shards, which are pods.

    The run mounts every NAS of the cluster, because results may be staged on any.
    """
    asked = request.resources
    name = asked.instance_type or instance_types.DEFAULT
    shape = instance_types.find(name, settings.load())
    share = pod_resources.divide_instance(shape, asked.nodes, request.pods)
    own = Placement(
        InstanceType(cpu=pod_resources.BASIC_CPU, memory_gib=pod_resources.BASIC_MEMORY_GIB),
        data_storage_gib=asked.data_storage_gib,
        mounts=(EVERY_MOUNT, *_mounts(request, None)),
        seconds=_seconds(request),
        makes_jobs=True,
    )
    amounts = {"cpu": share.cpu, "memory_gib": share.memory / 2**30, "gpus": share.gpus}
    shards = Placement(
        shape.model_copy(update=amounts), nodes=request.pods, allow_cpu=asked.allow_cpu
    )
    return [
        PlacementRequest(BATCH_INFERENCE.name, own),
        PlacementRequest(BATCH_INFERENCE.name, shards, f"a pod's share of {name}"),
    ]


def _of_evaluation(request: Evaluation) -> list[PlacementRequest]:
    """Request of an evaluation, and of its batch inference, which is a run of its own."""
    name = request.resources.instance_type or instance_types.DEFAULT
    own = Placement(
        instance_types.find(name, settings.load()),
        data_storage_gib=request.resources.data_storage_gib,
        mounts=_mounts(request, None),
        seconds=_seconds(request),
    )
    inference = _of_batch_inference(request.inference())
    return [PlacementRequest(EVALUATE.name, own, name), *inference]


def _of_tuning(tuning: Tuning) -> list[PlacementRequest]:
    """Requests of a tuning, and of its trials if they are runs of their own.

    A tuning whose trials have their own pods is small; otherwise its pod runs all parallel trials.
    """
    if _is_inline(tuning):
        parallel = f"{tuning.parallel_trials} parallel trials of {_type_of(tuning)}"
        shape = _shape_of_parallel_trials(tuning)
        return [PlacementRequest(TUNE.name, _with_scripts(tuning, shape), parallel)]
    own = Placement(_small(), mounts=_mounts(tuning, tuning.resources), seconds=_seconds(tuning))
    return [PlacementRequest(TUNE.name, own), *_of_training(tuning.training({}))]


def _of_pipeline(run: PipelineRun) -> list[PlacementRequest]:
    """Request of a pipeline run, which is small: its components have their own pods.

    It mounts every NAS of the cluster, because files may be staged on any.
    """
    mounts = (EVERY_MOUNT, *_mounts(run, None))
    return [
        PlacementRequest(PIPELINE_RUN.name, Placement(_small(), mounts=mounts, makes_jobs=True))
    ]


def _small_of(given: Mapping[str, Any]) -> Placement:
    """Placement of a run of any other flow: small, with its NAS and its time limit.

    The run itself refuses invalid parameters.
    """
    mounts = sorted(set(filter(None, map(site.nas_id, _uris(given)))))
    minutes = given.get("max_minutes")
    seconds = minutes * 60 if isinstance(minutes, int | float) else None
    return Placement(_small(), mounts=tuple(mounts), seconds=seconds)


def _small() -> InstanceType:
    """Shape of a run whose work is done in other pods."""
    return instance_types.find(instance_types.DEFAULT, settings.load())


def fit_to_capacity(request: PlacementRequest, available: Capacity) -> Placement:
    """Fit a request to a cluster: drop the GPUs if it lacks them and ``allow_cpu`` is set.

    Raises:
        ClusterError: If the cluster can never place it, with requested and available amounts.
    """
    placed = request.placement
    refusal = capacity.find_shortage(placed, request.type_name, available)
    if refusal and refusal.code == "NodesLackGpu" and placed.allow_cpu:
        placed = replace(placed, shape=capacity.without_gpus(placed.shape))
        refusal = capacity.find_shortage(placed, request.type_name, available)
    if refusal:
        raise refusal
    return placed


def _type_of(training: Training) -> str:
    return training.resources.instance_type or instance_types.DEFAULT


def _with_scripts(request: Training, shape: InstanceType, nodes: int = 1) -> Placement:
    """Placement of a run whose own pods run the scripts."""
    requested = request.resources
    return Placement(
        shape=shape,
        nodes=nodes,
        image=requested.image,
        boot_storage_gib=requested.boot_storage_gib,
        data_storage_gib=requested.data_storage_gib,
        mounts=_mounts(request, requested),
        seconds=_seconds(request),
        allow_cpu=requested.allow_cpu,
    )


def _is_inline(tuning: Tuning) -> bool:
    """Whether trials run in the tuning's pod, which on a cluster must be requested."""
    return tuning.dispatch == "inline"


def _shape_of_parallel_trials(tuning: Tuning) -> InstanceType:
    """Shape of a pod that runs all parallel trials with their nodes.

    Each trial has its own GPUs, unless the trials share them.
    """
    requested = tuning.resources
    each = instance_types.find(requested.instance_type, settings.load())
    times = tuning.parallel_trials * requested.nodes
    shared = each.shared_memory_gib
    return each.model_copy(
        update={
            "cpu": each.cpu * times,
            "memory_gib": each.memory_gib * times,
            "gpus": each.gpus * (requested.nodes if requested.share_gpus else times),
            "shared_memory_gib": None if shared is None else shared * times,
        }
    )


def _seconds(request: Training | BatchInference | Evaluation) -> float | None:
    return None if request.max_minutes is None else request.max_minutes * 60


def _mounts(request: BaseModel, requested: Resources | None) -> tuple[str, ...]:
    """Network folders of ``resources.mounts``, and those that any URI of the request is in."""
    explicit = resources.mount_ids(requested.mounts) if requested else []
    implied = filter(None, map(site.nas_id, _uris(request.model_dump(mode="json"))))
    return tuple(sorted({*explicit, *implied}))


def _uris(value: Any, field: str = "") -> Iterator[str]:
    """Yield every string in a field named ``uri`` or ``..._uri``; in groups and lists as well."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _uris(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _uris(inner, field)
    elif isinstance(value, str) and field.endswith("uri"):
        yield value


# For each flow that requests more than one small pod: its planner. They are here, below the flows,
# because the worker of a cluster places runs without importing the flows and their libraries
# (scikit-learn, matplotlib, boto3).
_PLANNERS: dict[str, Callable[[Any], list[PlacementRequest]]] = {
    TRAIN.name: _of_training,
    TUNE.name: _of_tuning,
    PIPELINE_RUN.name: _of_pipeline,
    BATCH_INFERENCE.name: _of_batch_inference,
    EVALUATE.name: _of_evaluation,
}

# For each flow with templates: the function that completes parameters from a template.
_FROM_TEMPLATE = {
    TRAIN.name: "tasks.training.training_templates:from_template",
    TUNE.name: "tasks.tuning.tuning_request:from_template",
}
