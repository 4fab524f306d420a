"""Capacity of a cluster, and checks of placements against it.

:func:`read` observes it; it can be stored as plain data. The checks are pure. They refuse only
what can never be scheduled, with the numbers, and describe what a run will wait for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from infra.instance_types import InstanceType
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import Placement
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.manifests import devices, disk_gib
from infra.kubernetes.quantities import GIB, format_cores, parse_quantity

PRODUCT = "nvidia.com/gpu.product"

_DISK = "ephemeral-storage"
_ORDINARY = {"cpu", "memory", _DISK}
# Of a run's pods: they have limits. Whether they are Terminating depends on their time limit.
_SCOPES = {"NotBestEffort"}
_BARRED = {"NoSchedule", "NoExecute"}
# Taints that Kubernetes itself sets while something is wrong with a node.
_PASSING = "node.kubernetes.io/"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Quota(_Model):
    """A ResourceQuota of the namespace: hard limits and usage, by resource."""

    name: str
    hard: dict[str, float]
    used: dict[str, float]


class Taint(_Model):
    """A taint of a node."""

    key: str
    value: str = ""
    effect: str


class NodeCapacity(_Model):
    """A kind of node: labels that instance types select, taints, allocatable resources."""

    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()
    allocatable: dict[str, float]


class Capacity(_Model):
    """Capacity of a cluster.

    ``model_dump(mode="json")`` makes plain data of it, ``Capacity(**data)`` the same again.

    Attributes:
        quotas: Those of the namespace; None if the account may not list them.
        nodes: One for each kind of node; None if the account may not list nodes.
        labels: The labels of nodes that were looked at. Of a shape that asks for others, as an
            instance type may that the cluster's worker does not know, nodes are not judged.
        most_gpus: How many GPUs one run may have, in all its nodes; None for no bound.
        nodes_may_come: Whether the cluster makes nodes as pods ask for them.
        local_data: Whether data storage is on the node's own disk.
        node_selector: Labels of the nodes of all runs.
        tolerations: Taints that all runs bear.
    """

    quotas: tuple[Quota, ...] | None = None
    nodes: tuple[NodeCapacity, ...] | None = None
    labels: tuple[str, ...] = ()
    most_gpus: int | None = None
    nodes_may_come: bool = False
    local_data: bool = True
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()


def read(api: Api, cluster: ClusterConfig, types: Mapping[str, InstanceType]) -> Capacity:
    """Read the cluster's capacity.

    Args:
        api: The cluster's API.
        cluster: Its configuration.
        types: The instance types, whose node selectors say which labels of nodes matter.

    Raises:
        ClusterError: If it cannot be asked. What the account may not list is None.
    """
    quotas = _allowed(api, "ResourceQuota")
    nodes = _allowed(api, "Node")
    matter = {PRODUCT, *cluster.node_selector}.union(
        *(one.node_selector for one in types.values())
    )
    return Capacity(
        quotas=None if quotas is None else tuple(map(_quota, filter(_holds, quotas))),
        nodes=None if nodes is None else _kinds(_node(one, matter) for one in nodes),
        labels=tuple(sorted(matter)),
        most_gpus=cluster.most_gpus,
        nodes_may_come=cluster.nodes_may_come,
        local_data=not cluster.storage_class,
        node_selector=cluster.node_selector,
        tolerations=tuple(cluster.tolerations),
    )


def _allowed(api: Api, kind: str) -> list[dict[str, Any]] | None:
    try:
        return api.list(kind)
    except ClusterError as error:
        if error.code == "Forbidden":
            return None
        raise


def _holds(quota: Mapping[str, Any]) -> bool:
    """Whether a quota surely counts the pods of runs; the API server enforces all others."""
    spec = quota.get("spec", {})
    return "scopeSelector" not in spec and _SCOPES.issuperset(spec.get("scopes") or ())


def _quota(quota: Mapping[str, Any]) -> Quota:
    status = quota.get("status", {})
    hard = status.get("hard") or quota.get("spec", {}).get("hard") or {}
    return Quota(
        name=quota["metadata"]["name"], hard=_numbers(hard), used=_numbers(status.get("used"))
    )


def list_nodes(api: Api) -> tuple[NodeCapacity, ...] | None:
    """List the nodes with all of their labels; None if the account may not list nodes.

    Raises:
        ClusterError: If the cluster cannot be asked.
    """
    nodes = _allowed(api, "Node")
    return None if nodes is None else tuple(_node(one) for one in nodes)


def can_hold(pod: Mapping[str, Any], count: int, nodes: Sequence[NodeCapacity]) -> bool:
    """Whether ``count`` pods would fit on the nodes if nothing else ran there.

    Args:
        pod: The pods' spec.
        count: How many there are.
        nodes: The nodes, as :func:`survey` has them.
    """
    selector: dict[str, str] = pod.get("nodeSelector") or {}
    asked = _requests(pod)
    room = 0.0
    for node in nodes:
        if selector.items() <= node.labels.items() and _tolerates_taints(
            node, pod.get("tolerations") or ()
        ):
            fits = (node.allocatable.get(name, 0) // n for name, n in asked.items())
            room += min(fits, default=math.inf)
    return room >= count


def _requests(pod: Mapping[str, Any]) -> dict[str, float]:
    """Effective requests of a pod: its containers' sum, or more for init containers."""
    total: dict[str, float] = {}
    for part, combine in (("containers", float.__add__), ("initContainers", max)):
        for container in pod.get(part) or ():
            asked = _numbers((container.get("resources") or {}).get("requests"))
            for name, amount in asked.items():
                total[name] = combine(total.get(name, 0.0), amount)
    return {name: amount for name, amount in total.items() if amount}


def _node(node: Mapping[str, Any], matter: set[str] | None = None) -> NodeCapacity:
    labels = node["metadata"].get("labels") or {}
    taints = node.get("spec", {}).get("taints") or ()
    return NodeCapacity(
        labels={key: value for key, value in labels.items() if matter is None or key in matter},
        taints=tuple(
            Taint(key=one["key"], value=one.get("value", ""), effect=one["effect"])
            for one in taints
            if one["effect"] in _BARRED and not one["key"].startswith(_PASSING)
        ),
        allocatable={
            name: amount
            for name, amount in _numbers(node.get("status", {}).get("allocatable")).items()
            # Devices have a / in their names.
            if amount and (name in _ORDINARY or "/" in name)
        },
    )


def _numbers(quantities: Mapping[str, str] | None) -> dict[str, float]:
    return {name: parse_quantity(quantity) for name, quantity in (quantities or {}).items()}


def _kinds(nodes: Iterable[NodeCapacity]) -> tuple[NodeCapacity, ...]:
    """Drop nodes that another alike node covers, so that few are left to compare."""
    kept: list[NodeCapacity] = []
    for node in nodes:
        if not any(_covers(other, node) for other in kept):
            kept = [other for other in kept if not _covers(node, other)] + [node]
    return tuple(kept)


def _covers(larger: NodeCapacity, smaller: NodeCapacity) -> bool:
    return (
        larger.labels == smaller.labels
        and larger.taints == smaller.taints
        and all(larger.allocatable.get(name, 0) >= n for name, n in smaller.allocatable.items())
    )


def find_shortage(placement: Placement, type_name: str, capacity: Capacity) -> ClusterError | None:
    """Return the error of a placement that the cluster can never satisfy, else None.

    Codes: ``PoolLimitExceeded``, ``QuotaExceeded``, ``NodesLackGpu``, ``NodesLackLabels`` and
    ``NodesTooSmall``. After ``NodesLackGpu`` a run that says ``allow_cpu`` may be tried again
    with :func:`without_gpus`.
    """
    return (
        _beyond_the_pool(placement, capacity)
        or _beyond_the_quotas(placement, capacity)
        or _beyond_the_nodes(placement, type_name, capacity)
    )


def without_gpus(shape: InstanceType) -> InstanceType:
    """Return the same shape without GPUs, on any node that is large enough."""
    return shape.model_copy(
        update={"gpus": 0, "gpu_kind": "", "node_selector": {}, "tolerations": []}
    )


def _beyond_the_pool(placement: Placement, capacity: Capacity) -> ClusterError | None:
    most = capacity.most_gpus
    if most is None or placement.gpus <= most:
        return None
    return ClusterError(
        f"The run asks for {placement.gpus} GPUs ({placement.nodes} nodes with "
        f"{placement.shape.gpus} each), and one run may have {most} on this cluster.",
        "Ask for fewer nodes or a smaller instance type, or have most_gpus raised in the "
        "cluster's configuration.",
        code="PoolLimitExceeded",
    )


def _beyond_the_quotas(placement: Placement, capacity: Capacity) -> ClusterError | None:
    for quota, resource, asked in _quota_demands(placement, capacity):
        hard = quota.hard[resource]
        if asked > hard:
            used = _amount(resource, quota.used.get(resource, 0))
            return ClusterError(
                f"The run asks for {_amount(resource, asked)} {_plain_name(resource)}, and the "
                f"namespace's quota {quota.name} allows {_amount(resource, hard)} ({used} used).",
                "Ask for fewer nodes or a smaller instance type, or have the quota raised.",
                code="QuotaExceeded",
            )
    return None


def _quota_demands(placement: Placement, capacity: Capacity) -> Iterable[tuple[Quota, str, float]]:
    asked = _in_all(placement, capacity)
    for quota in capacity.quotas or ():
        for resource in quota.hard:
            if demand := asked.get(_plain_name(resource)):
                yield quota, resource, demand


def _plain_name(resource: str) -> str:
    """Convert a quota's resource name to that of pods, which have requests and limits."""
    return resource.removeprefix("requests.").removeprefix("limits.").removeprefix("count/")


def _in_all(placement: Placement, capacity: Capacity) -> dict[str, float]:
    nodes = placement.nodes
    asked = {name: amount * nodes for name, amount in _of_one_node(placement, capacity).items()}
    asked |= {"pods": nodes, "jobs.batch": 1, "services": int(nodes > 1)}
    if placement.data_storage_gib and not capacity.local_data:
        asked |= {"storage": placement.data_storage_gib * GIB * nodes}
        asked |= {"persistentvolumeclaims": nodes}
    return asked


def _of_one_node(placement: Placement, capacity: Capacity) -> dict[str, float]:
    shape = placement.shape
    asked: dict[str, float] = {"cpu": shape.cpu, "memory": shape.memory_gib * GIB}
    if disk := disk_gib(placement, local_data=capacity.local_data):
        asked[_DISK] = disk * GIB
    return asked | devices(shape)


def _beyond_the_nodes(
    placement: Placement, type_name: str, capacity: Capacity
) -> ClusterError | None:
    shape = placement.shape
    unknown = _selector(shape, capacity).keys() - set(capacity.labels)
    if capacity.nodes is None or capacity.nodes_may_come or unknown:
        return None
    usable = [node for node in capacity.nodes if _admits(node, shape, capacity)]
    with_gpus = [node for node in usable if node.allocatable.get(shape.gpu_resource)]
    if shape.gpus and not with_gpus:
        return _no_gpu(shape, type_name, capacity.nodes)
    if not usable:
        return _no_label(shape, type_name, capacity)
    asked = _of_one_node(placement, capacity)
    fitting = with_gpus if shape.gpus else usable
    if any(
        all(node.allocatable.get(name, 0) >= n for name, n in asked.items()) for node in fitting
    ):
        return None
    return _too_small(asked, type_name, fitting)


def _selector(shape: InstanceType, capacity: Capacity) -> dict[str, str]:
    return {**capacity.node_selector, **shape.node_selector}


def _admits(node: NodeCapacity, shape: InstanceType, capacity: Capacity) -> bool:
    tolerations = (*capacity.tolerations, *shape.tolerations)
    return _selector(shape, capacity).items() <= node.labels.items() and _tolerates_taints(
        node, tolerations
    )


def _tolerates_taints(node: NodeCapacity, tolerations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether pods with these tolerations tolerate all taints of a node."""
    return all(any(_tolerates(one, taint) for one in tolerations) for taint in node.taints)


def _tolerates(toleration: Mapping[str, Any], taint: Taint) -> bool:
    """By the rules of "Taints and Tolerations" in Kubernetes' documentation."""
    if toleration.get("effect", "") not in ("", taint.effect):
        return False
    exists: bool = toleration.get("operator", "Equal") == "Exists"
    key: str = toleration.get("key", "")
    if not key:
        return exists
    return key == taint.key and (exists or str(toleration.get("value", "")) == taint.value)


def _no_gpu(shape: InstanceType, type_name: str, nodes: Iterable[NodeCapacity]) -> ClusterError:
    there = sorted(
        {
            node.labels.get(PRODUCT, shape.gpu_resource)
            for node in nodes
            if node.allocatable.get(shape.gpu_resource)
        }
    )
    wanted = shape.node_selector.get(PRODUCT) or shape.gpu_kind or shape.gpu_resource
    return ClusterError(
        f"No node of the cluster has the GPU of {type_name}, {wanted}, for runs. There are: "
        f"{', '.join(there) or 'none'}.",
        "Choose an instance type whose GPUs are there, or say allow_cpu. If such nodes are "
        "there, fix the type's node_selector and tolerations, and see modelyard doctor; if "
        "they are made as pods ask for them, set nodes_may_come in the cluster's configuration.",
        code="NodesLackGpu",
    )


def _no_label(shape: InstanceType, type_name: str, capacity: Capacity) -> ClusterError:
    selector = sorted(_selector(shape, capacity).items())
    wanted = ", ".join(f"{key}={value}" for key, value in selector) or "none"
    return ClusterError(
        f"No node of the cluster may have runs of {type_name}: none has their labels ({wanted}) "
        "and no taint but those that they tolerate.",
        "Correct node_selector and tolerations, of the type or of the cluster's configuration.",
        code="NodesLackLabels",
    )


def _too_small(
    asked: Mapping[str, float], type_name: str, nodes: Iterable[NodeCapacity]
) -> ClusterError:
    largest = {name: max(node.allocatable.get(name, 0) for node in nodes) for name in asked}
    short = {name for name in asked if asked[name] > largest[name]}
    # Else each amount is to be had, but no node has all of them.
    named = sorted(short or asked)
    return ClusterError(
        f"No node of the cluster is as large as {type_name}: a node of the run asks for "
        f"{_format_amounts(named, asked)}; the most that nodes have is "
        f"{_format_amounts(named, largest)}.",
        "Choose or define a smaller instance type, ask for less storage, or add larger nodes.",
        code="NodesTooSmall",
    )


def _format_amounts(names: Iterable[str], amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{_amount(name, amounts[name])} {name}" for name in names)


def _gibibytes(octets: float) -> str:
    return f"{round(octets / GIB, 2):g}Gi"


def _pieces(count: float) -> str:
    return f"{count:g}"


_WRITTEN: Mapping[str, Callable[[float], str]] = {
    "cpu": format_cores,
    "memory": _gibibytes,
    "storage": _gibibytes,
    _DISK: _gibibytes,
}


def _amount(resource: str, amount: float) -> str:
    written = _WRITTEN.get(_plain_name(resource), _pieces)
    return written(amount) if amount else "0"
