"""Manifests of an attempt: its Job, and the headless Service of its nodes.

Both are pure functions of their arguments, as plain data of the API. No secret's value is in
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from infra.instance_types import InstanceType
from infra.kubernetes import names, pods
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import AttemptSpec, Placement
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.pods import MountedVolume, Plain
from infra.kubernetes.quantities import GIB
from infra.workloads.base import NO_GPUS

CONTAINER = "run"
INDEX = "batch.kubernetes.io/job-completion-index"

# A run enforces its own time limit. The Job's deadline is for one that hangs, so it is beyond
# what starting, cleaning up and publishing results may take.
_ROOM_SECONDS = 600
# After all pods have started: the imports of a flow, and what each fetches first.
_JOINING_SECONDS = 300


def job(wanted: AttemptSpec, cluster: ClusterConfig) -> Plain:
    """Build the Job of an attempt.

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


def service(wanted: AttemptSpec, owner: Mapping[str, Any] | None = None) -> Plain | None:
    """Build the headless Service of an attempt; None for a single node.

    Args:
        wanted: The attempt.
        owner: Its Job as the API returned it, which becomes the Service's owner.
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


def _name(wanted: AttemptSpec) -> str:
    return names.job_name(wanted.flow_run_id, wanted.attempt)


def _described(wanted: AttemptSpec) -> Plain:
    described: Plain = {"labels": names.labels(wanted)}
    if annotations := names.build_annotations(wanted):
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


def _deadline(seconds: float, cluster: ClusterConfig) -> int:
    room = cluster.pending_minutes * 60 + cluster.grace_seconds + _ROOM_SECONDS
    return math.ceil(seconds + room)


def _pod(wanted: AttemptSpec, cluster: ClusterConfig) -> Plain:
    placement = wanted.placement
    shape = placement.shape
    mounted = _mounted(wanted, cluster)
    spec: Plain = {
        **pods.service_account(cluster, makes_jobs=placement.makes_jobs),
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


def _container(wanted: AttemptSpec, cluster: ClusterConfig, mounted: list[MountedVolume]) -> Plain:
    return {
        "name": CONTAINER,
        "image": _image(wanted.placement, cluster),
        # Arguments, not a command: the image's own entry point stays the first process, which
        # passes signals on and buries what a script's children leave.
        "args": pods.escape_command(wanted.command),
        "env": _env(wanted, cluster),
        "resources": _resources(wanted.placement, cluster),
        "securityContext": pods.container_security(),
        "volumeMounts": [one.mount for one in mounted],
        **pods.of_our_image(cluster),
    }


def _image(placement: Placement, cluster: ClusterConfig) -> str:
    if image := placement.image or cluster.image:
        return image
    raise ClusterError(
        "No image is named, neither by the run nor by the cluster's configuration.",
        "Set resources.image, or image in the file that MODELYARD_CLUSTER names.",
        code="ImageMissing",
    )


def _resources(placement: Placement, cluster: ClusterConfig) -> Plain:
    """Build the resources of a shape, as limits and as requests.

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
    """Devices of one node by resource name."""
    return {shape.gpu_resource: shape.gpus} if shape.gpus else {}


def disk_gib(placement: Placement, *, local_data: bool) -> float:
    """Ephemeral storage that a pod requests, in GiB; with its data storage if local."""
    return placement.boot_storage_gib + (placement.data_storage_gib if local_data else 0)


def _mounted(wanted: AttemptSpec, cluster: ClusterConfig) -> list[MountedVolume]:
    placement = wanted.placement
    return [
        _home(wanted, cluster),
        pods.tmp_volume(),
        *pods.shared_memory(placement.shape.dev_shm_gib * GIB),
        *pods.nas(cluster, pods.nas_ids(cluster, placement.mounts)),
    ]


def _home(wanted: AttemptSpec, cluster: ClusterConfig) -> MountedVolume:
    octets = wanted.placement.data_storage_gib * GIB
    if octets and cluster.storage_class:
        labels = names.labels(wanted)
        return pods.storage("home", pods.HOME, octets, cluster.storage_class, labels)
    return pods.empty_dir("home", pods.HOME, octets)


def _env(wanted: AttemptSpec, cluster: ClusterConfig) -> list[Plain]:
    """Build the container's variables: the cluster's, the run's, and the fixed ones.

    A run cannot override a variable that the cluster takes from a Secret.
    """
    given = [
        pods.env_value(name, text)
        for name, text in sorted(wanted.env.items())
        if name not in cluster.secret_env
    ]
    # The image's user may be another one, with no name: caches want a folder to write to, and one.
    home = [pods.env_value("HOME", pods.HOME), pods.env_value("USER", pods.USER)]
    usual = [*home, *_no_devices(wanted)]
    usual += [*_patience(wanted, cluster), *_way_to_jobs(wanted, cluster)]
    return pods.merged_env(usual, pods.cluster_env(cluster), given, _fixed_env(wanted, cluster))


def _no_devices(wanted: AttemptSpec) -> list[Plain]:
    """Hide GPUs, which CUDA images request where NVIDIA's runtime is the node's default."""
    if wanted.placement.gpus:
        return []
    return [pods.env_value(name, value) for name, value in NO_GPUS.items()]


def _patience(wanted: AttemptSpec, cluster: ClusterConfig) -> list[Plain]:
    """Time that the first node waits for the others: longer than pods may be Pending.

    The reconciler then ends the run first, with the reason why a pod does not start.
    """
    if wanted.placement.nodes == 1:
        return []
    # A run lets go of its nodes after twice the minutes at most; see run_policy.py.
    seconds = math.ceil(2 * cluster.pending_minutes * 60) + _JOINING_SECONDS
    return [pods.env_value("MODELYARD_JOIN_SECONDS", str(seconds))]


def _way_to_jobs(wanted: AttemptSpec, cluster: ClusterConfig) -> list[Plain]:
    """Variables of a run that creates Jobs itself: the cluster's configuration, its own image."""
    if not wanted.placement.makes_jobs:
        return []
    own = cluster.model_copy(update={"image": _image(wanted.placement, cluster)})
    document = own.model_dump_json(exclude_defaults=True, exclude={"context"})
    return [
        pods.env_value("MODELYARD_PIPELINE_LAUNCHER", "kubernetes"),
        pods.env_value("MODELYARD_CLUSTER_SETTINGS", document),
    ]


def _fixed_env(wanted: AttemptSpec, cluster: ClusterConfig) -> list[Plain]:
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
        *(pods.env_value(name, text) for name, text in fixed.items()),
        pods.env_field("MODELYARD_POD_UID", "metadata.uid"),
        pods.env_field("MODELYARD_POD_NAME", "metadata.name"),
        pods.env_field("MODELYARD_POD_IP", "status.podIP"),
        pods.env_field("MODELYARD_MACHINE", "spec.nodeName"),
        pods.env_field("MODELYARD_NODE", index)
        if nodes > 1
        else pods.env_value("MODELYARD_NODE", "0"),
    ]
