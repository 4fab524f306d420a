"""Builders of parts of Jobs and pods, as plain data of the API.

``infra.kubernetes.manifests`` (a run's Job) and ``infra.workloads.kubernetes.job_manifest`` (a
workload's Job) use them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from infra.errors import BadInputError
from infra.kubernetes.attempt_spec import EVERY_MOUNT
from infra.kubernetes.cluster import ClusterConfig, NasVolume
from infra.kubernetes.quantities import format_bytes, format_cores

Plain = dict[str, Any]

HOME = "/modelyard/home"
USER = "modelyard"
NAS = "/nas"
_TMP = "/tmp"  # noqa: S108 (a mount point: every pod has its own)
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (likewise)


class MountedVolume(NamedTuple):
    """A pod's volume and its container's volume mount."""

    volume: Plain
    mount: Plain


def job(
    metadata: Plain,
    described: Plain,
    pod: Plain,
    cluster: ClusterConfig,
    completion: Mapping[str, Any] = MappingProxyType({}),
) -> Plain:
    """Build a Job whose pods Kubernetes does not retry.

    Args:
        metadata: Metadata of the Job.
        described: Metadata of its pods.
        pod: Spec of its pods.
        cluster: Configuration of all pods.
        completion: The part of its spec that says how many pods there are.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            # The platform retries a failed attempt: only it knows whether that is wanted.
            "backoffLimit": 0,
            # One attempt has one executor: no pod replaces one that is still cleaning up.
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": cluster.finished_seconds,
            **completion,
            "template": {"metadata": described, "spec": pod},
        },
    }


def owner_reference(job: Mapping[str, Any]) -> Plain:
    """Build the owner reference to a Job, for objects that are deleted with it."""
    metadata = job["metadata"]
    return {
        "apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]
    }  # fmt: skip


def pod(cluster: ClusterConfig, *, security: Plain, token: bool = False) -> Plain:
    """Build the part of a pod's spec that all pods have in common.

    Args:
        cluster: Configuration of all pods.
        security: Its security context.
        token: Whether it may call the cluster's API.
    """
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": cluster.grace_seconds,
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "securityContext": security,
    }


def resources(
    *,
    cpu: float = 0,
    memory: float = 0,
    devices: Mapping[str, int] | None = None,
    disk: float = 0,
    cpu_request: float = 0,
    memory_request: float = 0,
    disk_request: float = 0,
) -> Plain:
    """Build the limits and requests of a container; 0 is left out.

    Args:
        cpu: Cores at most, and at least where no request is given.
        memory: Bytes at most, and at least where no request is given.
        devices: How many of each device, such as ``{"nvidia.com/gpu": 2}``.
        disk: Bytes on the node's own disk at most, and at least where no request is given: what
            it writes and logs, and volumes that are there.
        cpu_request: Cores at least.
        memory_request: Bytes at least.
        disk_request: Bytes on that disk at least.
    """
    whole = {name: str(count) for name, count in (devices or {}).items() if count}
    limits = _amounts(cpu, memory, disk) | whole
    requests = _amounts(cpu_request or cpu, memory_request or memory, disk_request or disk) | whole
    return {name: found for name, found in (("limits", limits), ("requests", requests)) if found}


def _amounts(cpu: float, memory: float, disk: float) -> dict[str, str]:
    found = {}
    if cpu:
        found["cpu"] = format_cores(cpu)
    if memory:
        found["memory"] = format_bytes(memory)
    if disk:
        found["ephemeral-storage"] = format_bytes(disk)
    return found


def pod_security(cluster: ClusterConfig) -> Plain:
    """Build the security context of a pod.

    With that of its container it meets the "restricted" Pod Security Standard.
    """
    return {
        "runAsNonRoot": True,
        "runAsUser": cluster.run_as_user,
        "runAsGroup": cluster.run_as_group,
        "fsGroup": cluster.fs_group,
        # Otherwise each start would change the group of all files of a large volume.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Plain:
    """Build the security context of a container."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def of_our_image(cluster: ClusterConfig) -> Plain:
    """Build the part of a container's spec common to containers of Modelyard's image."""
    spec: Plain = {
        # The pod's status then has the last lines of a container that failed early.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if cluster.image_pull_policy:
        spec["imagePullPolicy"] = cluster.image_pull_policy
    if sources := env_from(cluster):
        spec["envFrom"] = sources
    return spec


def service_account(cluster: ClusterConfig, *, makes_jobs: bool = False) -> Plain:
    """Build the service account of a run's pod.

    Only a pod that creates Jobs has an account's token.
    """
    account = cluster.service_account
    if makes_jobs:
        account = cluster.pipeline_service_account or account
    spec = pod(cluster, security=pod_security(cluster), token=makes_jobs)
    if account:
        spec["serviceAccountName"] = account
    if cluster.priority_class:
        spec["priorityClassName"] = cluster.priority_class
    if cluster.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in cluster.image_pull_secrets]
    return spec


# Kubernetes marks a silent node after 50 seconds, and evicts its pods so long after that.
# Without these tolerations it waits for 300 seconds, and so does the run.
_LOST_NODE = tuple(
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute",
     "tolerationSeconds": 10}
    for key in ("not-ready", "unreachable")
)  # fmt: skip


def nodes(
    cluster: ClusterConfig,
    selector: Mapping[str, str] | None = None,
    tolerations: Iterable[Mapping[str, Any]] = (),
) -> Plain:
    """Build the node selector and the tolerations of a pod.

    Args:
        cluster: The configuration of all pods.
        selector: Further node labels; they override the cluster's.
        tolerations: Further tolerations.
    """
    spec: Plain = {}
    if chosen := {**cluster.node_selector, **(selector or {})}:
        spec["nodeSelector"] = chosen
    borne: list[Plain] = []
    for one in (*cluster.tolerations, *tolerations):
        if dict(one) not in borne:
            borne.append(dict(one))
    named = {one.get("key") for one in borne}
    borne += [one for one in _LOST_NODE if one["key"] not in named]
    return {**spec, "tolerations": borne}


def empty_dir(name: str, path: str, octets: float = 0) -> MountedVolume:
    """Build an emptyDir volume on the node's disk, limited in bytes; 0 sets no limit."""
    limit = {"sizeLimit": format_bytes(octets)} if octets else {}
    return MountedVolume({"name": name, "emptyDir": limit}, {"name": name, "mountPath": path})


def tmp_volume() -> MountedVolume:
    """Build the volume of the pod's /tmp."""
    return empty_dir("tmp", _TMP)


def shared_memory(octets: float) -> list[MountedVolume]:
    """Build a /dev/shm of so many bytes, which count as memory; 0 for the default."""
    if not octets:
        return []
    source = {"medium": "Memory", "sizeLimit": format_bytes(octets)}
    mount = {"name": "shm", "mountPath": _SHARED_MEMORY}
    return [MountedVolume({"name": "shm", "emptyDir": source}, mount)]


def storage(
    name: str, path: str, octets: float, storage_class: str, labels: Mapping[str, str]
) -> MountedVolume:
    """Build a generic ephemeral volume of a storage class."""
    claim = {
        "metadata": {"labels": dict(labels)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": format_bytes(octets)}},
        },
    }
    return MountedVolume(
        {"name": name, "ephemeral": {"volumeClaimTemplate": claim}},
        {"name": name, "mountPath": path},
    )


def nas_ids(cluster: ClusterConfig, wanted: Iterable[str]) -> list[str]:
    """Resolve ids of network folders, in order; "*" is all of the cluster's.

    Raises:
        BadInputError: With the code ``NasUnknown``, if the cluster has none of that id.
    """
    asked = set(wanted)
    if EVERY_MOUNT in asked:
        asked = (asked - {EVERY_MOUNT}) | cluster.nas.keys()
    if unknown := sorted(asked - cluster.nas.keys()):
        raise BadInputError(
            f"The cluster has no NAS with the id {unknown[0]}. It has: "
            f"{', '.join(sorted(cluster.nas)) or 'none'}.",
            "Correct resources.mounts, or add the id under nas in the cluster's configuration.",
            code="NasUnknown",
        )
    return sorted(asked)


def nas(cluster: ClusterConfig, ids: Iterable[str]) -> list[MountedVolume]:
    """Build volumes of network folders, mounted at /nas/ID for reading and writing."""
    return [
        MountedVolume(
            # An id may have characters that a volume's name may not.
            {"name": f"nas-{number}", **_nas_source(cluster.nas[one])},
            {"name": f"nas-{number}", "mountPath": f"{NAS}/{one}"},
        )
        for number, one in enumerate(ids)
    ]


def _nas_source(volume: NasVolume) -> Plain:
    if volume.claim:
        return {"persistentVolumeClaim": {"claimName": volume.claim}}
    return {"nfs": {"server": volume.server, "path": volume.path}}


def nas_setting(ids: Iterable[str]) -> str:
    """Value of ``MODELYARD_NAS`` in a pod with these network folders."""
    return json.dumps({one: f"{NAS}/{one}" for one in ids})


def env_value(name: str, text: str) -> Plain:
    """Build a variable with exactly this value: $ is escaped, or $(NAME) would be expanded."""
    return {"name": name, "value": text.replace("$", "$$")}


def escape_command(words: Iterable[str]) -> list[str]:
    """Escape $ in a command, in which Kubernetes would expand $(NAME)."""
    return [word.replace("$", "$$") for word in words]


def env_field(name: str, path: str) -> Plain:
    """Build a variable from a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def cluster_env(cluster: ClusterConfig) -> list[Plain]:
    """Build the variables of the cluster's configuration, secrets by reference.

    Secrets come first, so that later values may refer to them as $(NAME).
    """
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}}
        for name, key in sorted(cluster.secret_env.items())
    ]
    return secret + [{"name": name, "value": text} for name, text in sorted(cluster.env.items())]


def env_from(cluster: ClusterConfig) -> list[Plain]:
    """Build envFrom: the ConfigMap and the Secret whose keys all become variables."""
    found: list[Plain] = []
    if cluster.config_map:
        found.append({"configMapRef": {"name": cluster.config_map}})
    if cluster.secret:
        found.append({"secretRef": {"name": cluster.secret}})
    return found


def merged_env(*parts: Iterable[Plain]) -> list[Plain]:
    """Merge lists of variables; of equal names the last one counts."""
    found: dict[str, Plain] = {}
    for part in parts:
        for one in part:
            found.pop(one["name"], None)
            found[one["name"]] = one
    return list(found.values())
