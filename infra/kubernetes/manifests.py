"""The Job of an attempt of a run, and the Service by which its nodes find each other.

Both are plain data, in the API's own form, and made of nothing but their arguments: the same
arguments give the same manifest. No value of a secret is in them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from infra.instance_types import InstanceType
from infra.kubernetes import names, pods
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.pods import Mounted, Plain
from infra.kubernetes.quantities import GIB
from infra.kubernetes.refusals import ClusterError
from infra.kubernetes.wanted import Placement, Wanted

CONTAINER = "run"
INDEX = "batch.kubernetes.io/job-completion-index"

# A run keeps its own time and says so at its end. The Job's limit is for one that no longer can,
# so it lies beyond what starting, tidying up and handing over results may take.
_ROOM_SECONDS = 600
# After all pods have started: the imports of a flow, and what each fetches first.
_JOINING_SECONDS = 300


def job(wanted: Wanted, cluster: Cluster) -> Plain:
    """The Job of an attempt.

    Raises:
        ClusterError: With the code ``ImageMissing``, if neither the run nor the cluster names an
            image.
        BadInputError: With the code ``NasUnknown``, if the cluster has no such network folder.
    """
    return pods.job(
        {"name": _name(wanted), **_described(wanted)},
        _described(wanted),
        _pod(wanted, cluster),
        cluster,
        _nodes_together(wanted.placement),
    )


def service(wanted: Wanted, owner: Mapping[str, Any] | None = None) -> Plain | None:
    """The headless Service of an attempt; None for one of a single node, which needs none.

    Args:
        wanted: The attempt.
        owner: Its Job as the API gave it, with which the Service then goes.
    """
    if wanted.placement.nodes == 1:
        return None
    metadata = {"name": _name(wanted), **_described(wanted)}
    if owner is not None:
        metadata["ownerReferences"] = [pods.owner_reference(owner)]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            "selector": names.selector(wanted),
            # Nodes look for the first one while it is still on its way up.
            "publishNotReadyAddresses": True,
        },
    }


def _name(wanted: Wanted) -> str:
    return names.job(wanted.flow_run_id, wanted.attempt)


def _described(wanted: Wanted) -> Plain:
    described: Plain = {"labels": names.labels(wanted)}
    if annotations := names.whole_names(wanted):
        described["annotations"] = annotations
    return described


def _nodes_together(placement: Placement) -> Plain:
    if placement.nodes == 1:
        return {"completions": 1, "parallelism": 1}
    return {
        "completionMode": "Indexed",
        "completions": placement.nodes,
        "parallelism": placement.nodes,
        # The first node runs the flow: with it the run has ended, whatever the others still do.
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def _deadline(seconds: float, cluster: Cluster) -> int:
    room = cluster.pending_minutes * 60 + cluster.grace_seconds + _ROOM_SECONDS
    return math.ceil(seconds + room)


def _pod(wanted: Wanted, cluster: Cluster) -> Plain:
    placement = wanted.placement
    shape = placement.shape
    mounted = _mounted(wanted, cluster)
    spec: Plain = {
        **pods.identity(cluster, makes_jobs=placement.makes_jobs),
        **pods.nodes(cluster, shape.node_selector, shape.tolerations),
        "containers": [_container(wanted, cluster, mounted)],
        "volumes": [one.volume for one in mounted],
    }
    if placement.seconds is not None:
        # The pod's and not the Job's, which would count the time in a queue as well.
        spec["activeDeadlineSeconds"] = _deadline(placement.seconds, cluster)
    if shape.gpus and cluster.gpu_runtime_class:
        spec["runtimeClassName"] = cluster.gpu_runtime_class
    if wanted.priority_class:
        spec["priorityClassName"] = wanted.priority_class
    if placement.nodes > 1:
        spec["subdomain"] = _name(wanted)
    return spec


def _container(wanted: Wanted, cluster: Cluster, mounted: list[Mounted]) -> Plain:
    return {
        "name": CONTAINER,
        "image": _image(wanted.placement, cluster),
        # Arguments, not a command: the image's own entry point stays the first process, which
        # passes signals on and buries what a script's children leave.
        "args": pods.literal(wanted.command),
        "env": _env(wanted, cluster),
        "resources": _resources(wanted.placement, cluster),
        "securityContext": pods.container_security(),
        "volumeMounts": [one.mount for one in mounted],
        **pods.of_our_image(cluster),
    }


def _image(placement: Placement, cluster: Cluster) -> str:
    if image := placement.image or cluster.image:
        return image
    raise ClusterError(
        "No image is named, neither by the run nor by the cluster's configuration.",
        "Set resources.image, or image in the file that MODELYARD_CLUSTER names.",
        code="ImageMissing",
    )


def _resources(placement: Placement, cluster: Cluster) -> Plain:
    """What the shape says, as limits and as requests.

    Both are equal, so that the pod is of the class "Guaranteed": a run has what its type says
    whatever its neighbours do, and is the last to be evicted. A limit on the node's disk would
    hold for all that the pod writes: it needs the size of the boot storage to be known.
    """
    shape = placement.shape
    disk = disk_gib(placement, local_data=not cluster.storage_class) * GIB
    return pods.resources(
        cpu=shape.cpu,
        memory=shape.memory_gib * GIB,
        devices=devices(shape),
        disk=disk if placement.boot_storage_gib else 0,
        disk_request=disk,
    )


def devices(shape: InstanceType) -> dict[str, int]:
    """The devices of one node by the cluster's name for them."""
    return {shape.gpu_resource: shape.gpus} if shape.gpus else {}


def disk_gib(placement: Placement, *, local_data: bool) -> float:
    """What a pod asks for of its node's own disk, in GiB; data storage if that is there too."""
    return placement.boot_storage_gib + (placement.data_storage_gib if local_data else 0)


def _mounted(wanted: Wanted, cluster: Cluster) -> list[Mounted]:
    placement = wanted.placement
    return [
        _home(wanted, cluster),
        pods.temporary(),
        *pods.shared_memory(placement.shape.dev_shm_gib * GIB),
        *pods.nas(cluster, pods.nas_ids(cluster, placement.mounts)),
    ]


def _home(wanted: Wanted, cluster: Cluster) -> Mounted:
    octets = wanted.placement.data_storage_gib * GIB
    if octets and cluster.storage_class:
        labels = names.labels(wanted)
        return pods.storage("home", pods.HOME, octets, cluster.storage_class, labels)
    return pods.room("home", pods.HOME, octets)


def _env(wanted: Wanted, cluster: Cluster) -> list[Plain]:
    """The variables of the container: the cluster's, the run's, and those that are fixed.

    One that the cluster takes from a Secret stays that, whatever the run says.
    """
    given = [
        pods.value(name, text)
        for name, text in sorted(wanted.env.items())
        if name not in cluster.secret_env
    ]
    # The image's user may be another one, with no name: caches want a folder to write to, and one.
    home = [pods.value("HOME", pods.HOME), pods.value("USER", pods.USER)]
    usual = [*home, *_no_devices(wanted)]
    usual += [*_patience(wanted, cluster), *_way_to_jobs(wanted, cluster)]
    return pods.merged_env(usual, pods.cluster_env(cluster), given, _fixed_env(wanted, cluster))


def _no_devices(wanted: Wanted) -> list[Plain]:
    """Images with CUDA ask for all GPUs of a node whose usual runtime is NVIDIA's."""
    if wanted.placement.gpus:
        return []
    return [pods.value("NVIDIA_VISIBLE_DEVICES", "void")]


def _patience(wanted: Wanted, cluster: Cluster) -> list[Plain]:
    """How long the first node waits for the others: longer than their pods may be Pending.

    Why a pod does not start is told by whoever gives the run up then, and not by that node.
    """
    if wanted.placement.nodes == 1:
        return []
    # A run lets go of its nodes after twice the minutes at most; see run_policy.py.
    seconds = math.ceil(2 * cluster.pending_minutes * 60) + _JOINING_SECONDS
    return [pods.value("MODELYARD_JOIN_SECONDS", str(seconds))]


def _way_to_jobs(wanted: Wanted, cluster: Cluster) -> list[Plain]:
    """What a run that makes Jobs itself must know: how, and what all pods have in common."""
    if not wanted.placement.makes_jobs:
        return []
    told = cluster.model_dump_json(exclude_defaults=True, exclude={"context"})
    return [
        pods.value("MODELYARD_PIPELINE_LAUNCHER", "kubernetes"),
        pods.value("MODELYARD_CLUSTER_SETTINGS", told),
    ]


def _fixed_env(wanted: Wanted, cluster: Cluster) -> list[Plain]:
    nodes = wanted.placement.nodes
    name = _name(wanted)
    index = f"metadata.annotations['{INDEX}']"
    fixed = {
        "PREFECT__FLOW_RUN_ID": wanted.flow_run_id,
        "MODELYARD_ATTEMPT": str(wanted.attempt),
        "MODELYARD_HOME": pods.HOME,
        "MODELYARD_HOME_LASTS": "false",
        "MODELYARD_NAS": pods.nas_setting(pods.nas_ids(cluster, wanted.placement.mounts)),
        "MODELYARD_NODES": str(nodes),
        "MODELYARD_MASTER": f"{name}-0.{name}" if nodes > 1 else "localhost",
    }
    return [
        *(pods.value(name, text) for name, text in fixed.items()),
        pods.field("MODELYARD_POD_UID", "metadata.uid"),
        pods.field("MODELYARD_POD_IP", "status.podIP"),
        pods.field("MODELYARD_NODE", index) if nodes > 1 else pods.value("MODELYARD_NODE", "0"),
    ]
