"""Builders of a Job's and a pod's parts. All of them are plain data, in the API's own form.

They serve the Job of a run (``infra.kubernetes.manifests``) and that of a workload
(``infra.workloads.kubernetes.job_manifest``), which differ in what they ask for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from infra.errors import BadInputError
from infra.kubernetes.cluster import Cluster, NasVolume
from infra.kubernetes.quantities import cores, size
from infra.kubernetes.wanted import EVERY_MOUNT

Plain = dict[str, Any]

HOME = "/modelyard/home"
USER = "modelyard"
NAS = "/nas"
_TMP = "/tmp"  # noqa: S108 (a mount point: every pod has its own)
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (likewise)


class Mounted(NamedTuple):
    """A volume of a pod, and where its container has it."""

    volume: Plain
    mount: Plain


def job(
    metadata: Plain,
    described: Plain,
    pod: Plain,
    cluster: Cluster,
    completion: Mapping[str, Any] = MappingProxyType({}),
) -> Plain:
    """A Job whose pods are not repeated by Kubernetes.

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
            # A failed attempt is the platform's to repeat, which knows whether that is wanted.
            "backoffLimit": 0,
            # One attempt has one executor: no pod takes over from one that still tidies up.
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": cluster.finished_seconds,
            **completion,
            "template": {"metadata": described, "spec": pod},
        },
    }


def owner_reference(job: Mapping[str, Any]) -> Plain:
    """Reference to a Job, as the API gave it, for objects that are deleted with it."""
    metadata = job["metadata"]
    return {
        "apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]
    }  # fmt: skip


def pod(cluster: Cluster, *, security: Plain, token: bool = False) -> Plain:
    """The part of a pod's spec that all pods have in common.

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
    """The limits and requests of a container; what is 0 is left out.

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
        found["cpu"] = cores(cpu)
    if memory:
        found["memory"] = size(memory)
    if disk:
        found["ephemeral-storage"] = size(disk)
    return found


def pod_security(cluster: Cluster) -> Plain:
    """The security context of a pod.

    With that of its container it meets the "restricted" Pod Security Standard.
    """
    return {
        "runAsNonRoot": True,
        "runAsUser": cluster.run_as_user,
        "runAsGroup": cluster.run_as_group,
        "fsGroup": cluster.fs_group,
        # Else each start would walk through all files of a large volume.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Plain:
    """The security context of a container."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def of_our_image(cluster: Cluster) -> Plain:
    """The part of a container's spec that all containers of our own image have in common."""
    spec: Plain = {
        # So that the pod itself tells the last lines of a container that died early.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if cluster.image_pull_policy:
        spec["imagePullPolicy"] = cluster.image_pull_policy
    if sources := env_from(cluster):
        spec["envFrom"] = sources
    return spec


def identity(cluster: Cluster, *, makes_jobs: bool = False) -> Plain:
    """A run's pod, with what it acts as in the cluster's API.

    That is nobody, unless it makes Jobs: then it has the token of the account for that.
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


# Of a node that has fallen silent, which Kubernetes sees after 50 seconds, pods are given up so
# soon. Without these they stay for 300 seconds more, and so does their run.
_LOST_NODE = tuple(
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute",
     "tolerationSeconds": 10}
    for key in ("not-ready", "unreachable")
)  # fmt: skip


def nodes(
    cluster: Cluster,
    selector: Mapping[str, str] | None = None,
    tolerations: Iterable[Mapping[str, Any]] = (),
) -> Plain:
    """The part of a pod's spec that says which nodes it may be on.

    Args:
        cluster: What it says holds for every pod.
        selector: Labels of the nodes beside those; they win where both name a label.
        tolerations: Taints of the nodes beside those.
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


def room(name: str, path: str, octets: float = 0) -> Mounted:
    """An empty folder on the node's own disk, of so many bytes at most; 0 sets no bound."""
    limit = {"sizeLimit": size(octets)} if octets else {}
    return Mounted({"name": name, "emptyDir": limit}, {"name": name, "mountPath": path})


def temporary() -> Mounted:
    """The pod's own /tmp."""
    return room("tmp", _TMP)


def shared_memory(octets: float) -> list[Mounted]:
    """A /dev/shm of so many bytes, which count as the container's memory; 0 leaves the usual."""
    if not octets:
        return []
    source = {"medium": "Memory", "sizeLimit": size(octets)}
    mount = {"name": "shm", "mountPath": _SHARED_MEMORY}
    return [Mounted({"name": "shm", "emptyDir": source}, mount)]


def storage(
    name: str, path: str, octets: float, storage_class: str, labels: Mapping[str, str]
) -> Mounted:
    """A volume of a storage class, which lives as long as the pod."""
    claim = {
        "metadata": {"labels": dict(labels)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": size(octets)}},
        },
    }
    return Mounted(
        {"name": name, "ephemeral": {"volumeClaimTemplate": claim}},
        {"name": name, "mountPath": path},
    )


def nas_ids(cluster: Cluster, wanted: Iterable[str]) -> list[str]:
    """The ids of the network folders that are wanted, in order; "*" is all of the cluster's.

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


def nas(cluster: Cluster, ids: Iterable[str]) -> list[Mounted]:
    """Network folders at /nas/ID, for reading and writing."""
    return [
        Mounted(
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
    """What ``MODELYARD_NAS`` says in a pod that has these network folders."""
    return json.dumps({one: f"{NAS}/{one}" for one in ids})


def value(name: str, text: str) -> Plain:
    """A variable whose value is exactly ``text``: Kubernetes expands $(NAME), unless $ is $$."""
    return {"name": name, "value": text.replace("$", "$$")}


def literal(words: Iterable[str]) -> list[str]:
    """A command whose words stay as they are: Kubernetes expands $(NAME) in them too."""
    return [word.replace("$", "$$") for word in words]


def field(name: str, path: str) -> Plain:
    """A variable whose value is a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def cluster_env(cluster: Cluster) -> list[Plain]:
    """The variables that the cluster's configuration names, secrets only by reference.

    Secrets come first: a later value may then use one as $(NAME), which the kubelet fills in.
    """
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}}
        for name, key in sorted(cluster.secret_env.items())
    ]
    return secret + [{"name": name, "value": text} for name, text in sorted(cluster.env.items())]


def env_from(cluster: Cluster) -> list[Plain]:
    """The config map and the Secret whose keys all become variables."""
    found: list[Plain] = []
    if cluster.config_map:
        found.append({"configMapRef": {"name": cluster.config_map}})
    if cluster.secret:
        found.append({"secretRef": {"name": cluster.secret}})
    return found


def merged_env(*parts: Iterable[Plain]) -> list[Plain]:
    """Variables in one list, in which each name stands once: a later part wins."""
    found: dict[str, Plain] = {}
    for part in parts:
        for one in part:
            found.pop(one["name"], None)
            found[one["name"]] = one
    return list(found.values())
