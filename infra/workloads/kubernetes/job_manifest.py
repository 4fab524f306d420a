"""Manifest of a workload's Job, a pure function of its arguments.

Its pod has three containers, one after the other. ``stage-in`` fetches inputs, ``component`` is
the workload's own image with nothing of ours in it, and ``stage-out`` sends outputs. The first two
are init containers: one that fails ends the pod, with its exit status. Only those that stage have
credentials of the storage, and a component that is a program of Modelyard's.

A workload's sidecar is an init container that is restarted ("sidecar containers" in Kubernetes'
documentation): it is started before the component, and ended after the pod's last container.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from infra.errors import BadInputError
from infra.instance_types import InstanceType
from infra.kubernetes import names, pods
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.pods import Plain
from infra.kubernetes.quantities import GIB
from infra.storage.nas import parse as parse_nas
from infra.workloads.base import ResourceRequest, Sidecar, Workload
from infra.workloads.kubernetes.stage import VOLUME
from infra.workloads.kubernetes.staging_plan import StagingPlan

STAGE_IN, COMPONENT, STAGE_OUT = "stage-in", "component", "stage-out"
JOB = "modelyard/job"
TASK = "modelyard/task"
TOKEN = "modelyard/token"  # noqa: S105 (distinguishes tries; no secret)

_MODULE = "infra.workloads.kubernetes.stage"
_STAGE = "modelyard-stage"
_STAGE_CPU = 0.1
_LEAST_CPU = 0.1  # what is requested for a component that says nothing of it
_LEAST_MEMORY = 2**28
_STAGE_MEMORY = 2**30
_HOME = "/tmp"  # noqa: S108 (the container's own)
_NVIDIA = "nvidia.com/gpu"


@dataclass(frozen=True)
class JobIdentity:
    """Name and owner of a Job.

    Attributes:
        name: The Job's name.
        token: Distinguishes one try of the workload from another.
        labels: Labels of the Job and its pod.
        owner: The Job that owns it; None if there is none.
    """

    name: str
    token: str
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class InstanceSpec:
    """Instances on which the workloads of a run have their pods.

    Attributes:
        type_name: Name of their type, for messages.
        shape: Their shape; None if pods go to any node, and are as many as there are workloads.
        count: How many there are.
        boot_storage_gib: Ephemeral storage of each pod, in GiB; 0 sets no limit.
        data_storage_gib: Size of the volume with each pod's inputs and outputs, in GiB; 0 sets no
            limit.
    """

    type_name: str = ""
    shape: InstanceType | None = None
    count: int = 1
    boot_storage_gib: float = 0
    data_storage_gib: float = 0


ANY_NODE = InstanceSpec()


def build_job(
    workload: Workload,
    cluster: ClusterConfig,
    named: JobIdentity,
    plan: StagingPlan,
    base: str,
    instances: InstanceSpec,
) -> Plain:
    """Build the Job of a workload.

    Args:
        workload: The workload.
        cluster: Configuration of all pods.
        named: The Job's name and owner.
        plan: What is staged for it.
        base: The URI with the plan.
        instances: What its pod runs on.

    Raises:
        ClusterError: With the code ``ImageMissing``, if the cluster's file names no image.
        BadInputError: With the code ``NasUnknown``, if the cluster has no such network folder;
            ``SecretReserved``, if the component asks for a credential of the platform.
    """
    _check_secrets(workload, cluster)
    asked = workload.kubernetes.get("metadata", {})
    labels = {**asked.get("labels", {}), **named.labels, JOB: named.name}
    about = {TASK: workload.name, TOKEN: named.token}
    metadata: Plain = {"name": named.name, "labels": {**named.labels, JOB: named.name},
                       "annotations": about}  # fmt: skip
    if named.owner:
        loose = {"blockOwnerDeletion": False, "controller": False}
        metadata["ownerReferences"] = [pods.owner_reference(named.owner) | loose]
    described = {"labels": labels, "annotations": {**asked.get("annotations", {}), **about}}
    pod = _pod(workload, cluster, plan, base, instances)
    volume = _stage_volume(cluster, instances, named.labels)
    pod["volumes"] = [volume, *pod["volumes"]]
    return pods.job(metadata, described, pod, cluster)


def _check_secrets(workload: Workload, cluster: ClusterConfig) -> None:
    """Refuse a component that names a Secret with credentials of the platform."""
    variables = (one.get("valueFrom", {}) for one in workload.kubernetes.get("env", ()))
    named = {one["secretKeyRef"]["name"] for one in variables if "secretKeyRef" in one}
    volumes = workload.kubernetes.get("volumes", ())
    named |= {one["secret"]["secretName"] for one in volumes if "secret" in one}
    if reserved := sorted(named & cluster.platform_secrets):
        raise BadInputError(
            f"{workload.name} asks for the Secret {reserved[0]}, which has the platform's "
            "credentials.",
            "Make a Secret of its own for what the component needs, in the namespace of the runs.",
            code="SecretReserved",
        )


def _stage_volume(
    cluster: ClusterConfig, instances: InstanceSpec, labels: Mapping[str, str]
) -> Plain:
    """Volume of inputs and outputs: of the storage class if it has a size, else on the node."""
    octets = instances.data_storage_gib * GIB
    if octets and cluster.storage_class:
        return pods.storage(_STAGE, VOLUME, octets, cluster.storage_class, labels).volume
    return pods.empty_dir(_STAGE, VOLUME, octets).volume


def _pod(
    workload: Workload, cluster: ClusterConfig, plan: StagingPlan, base: str,
    instances: InstanceSpec,
) -> Plain:  # fmt: skip
    asked = workload.kubernetes
    ids = _nas_ids(workload, cluster, plan, base)
    nas = pods.nas(cluster, ids)
    security = {
        "fsGroup": asked.get("securityContext", {}).get("runAsGroup", cluster.fs_group),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    component = _component(workload, cluster, plan, dict(zip(ids, nas, strict=True)), instances)
    sidecar = workload.sidecar
    beside = [_sidecar(sidecar, cluster, plan)] if sidecar else []
    shared = pods.shared_memory(sidecar.shared_memory) if sidecar else []
    shape = instances.shape
    spec: Plain = {
        **pods.pod(cluster, security=security),
        **pods.nodes(
            cluster,
            {**(shape.node_selector if shape else {}), **asked.get("nodeSelector", {})},
            [*(shape.tolerations if shape else ()), *asked.get("tolerations", ())],
        ),
        "initContainers": [
            _stage(STAGE_IN, "in", workload, cluster, ids, base),
            *beside,
            component,
        ],
        "containers": [_stage(STAGE_OUT, "out", workload, cluster, ids, base)],
        "volumes": [*(one.volume for one in (*nas, *shared)), *asked.get("volumes", ())],
    }
    if cluster.priority_class:
        spec["priorityClassName"] = cluster.priority_class
    if _accelerators(workload) and cluster.gpu_runtime_class:
        spec["runtimeClassName"] = cluster.gpu_runtime_class
    pull = dict.fromkeys(
        (*(one["name"] for one in asked.get("imagePullSecrets", ())), *cluster.image_pull_secrets)
    )
    if pull:
        spec["imagePullSecrets"] = [{"name": name} for name in pull]
    for part in ("affinity", "activeDeadlineSeconds", "resourceClaims"):
        if asked.get(part):
            spec[part] = asked[part]
    return spec


def _component(
    workload: Workload,
    cluster: ClusterConfig,
    plan: StagingPlan,
    nas: Mapping[str, pods.MountedVolume],
    instances: InstanceSpec,
) -> Plain:
    asked = workload.kubernetes
    security = asked.get("securityContext", {})
    mounts = [
        {"name": _STAGE, "mountPath": top, "subPath": str(number)}
        | ({} if _writes(top, plan) else {"readOnly": True})
        for number, top in enumerate(plan.tops)
    ]
    mounts += [_folder(path, uri, nas) for path, uri in workload.folders.items()]
    found: Plain = {
        "name": COMPONENT,
        "image": workload.image,
        "workingDir": str(workload.folder),
        "env": pods.merged_env(
            _home(security, cluster),
            _platform_env(cluster, nas) if workload.is_platform else (),
            asked.get("env", ()),
            (pods.env_value(*one) for one in workload.environment.items()),
        ),
        "resources": _resources(workload, cluster, instances),
        "securityContext": _security(security, cluster),
        "volumeMounts": [*mounts, *asked.get("volumeMounts", ())],
    }
    if workload.is_platform:
        found |= {"securityContext": _stage_security(security, cluster)}
        found |= pods.of_our_image(cluster)
    if workload.command:
        found["command"] = pods.escape_command(workload.command)
    if workload.arguments:
        found["args"] = pods.escape_command(workload.arguments)
    if workload.ports:
        found["ports"] = [{"containerPort": port} for port in workload.ports]
    if asked.get("imagePullPolicy"):
        found["imagePullPolicy"] = asked["imagePullPolicy"]
    return found


def _sidecar(sidecar: Sidecar, cluster: ClusterConfig, plan: StagingPlan) -> Plain:
    folder = str(sidecar.folder)
    asked = sidecar.resources
    place = plan.place(folder, Path())
    return {
        "name": sidecar.name,
        "image": sidecar.image,
        "restartPolicy": "Always",
        "command": pods.escape_command(sidecar.command),
        "workingDir": folder,
        "env": pods.merged_env(
            _home({}, cluster), (pods.env_value(*one) for one in sidecar.environment.items())
        ),
        "resources": pods.resources(
            cpu=asked.cpu, memory=asked.memory, devices=_devices(asked, sidecar.name),
            cpu_request=asked.cpu_request or (0 if asked.cpu else _LEAST_CPU),
            memory_request=asked.memory_request or (0 if asked.memory else _LEAST_MEMORY),
        ),
        "securityContext": _security({}, cluster),
        "volumeMounts": [
            {"name": _STAGE, "mountPath": folder, "subPath": str(place)},
            *(one.mount for one in pods.shared_memory(sidecar.shared_memory)),
        ],
    }  # fmt: skip


def _platform_env(cluster: ClusterConfig, ids: Iterable[str]) -> list[Plain]:
    """Variables of Modelyard's own programs, beside those of ``envFrom``."""
    return [
        *pods.cluster_env(cluster), pods.env_value("MODELYARD_NAS", pods.nas_setting(ids))
    ]  # fmt: skip


def _home(asked: Mapping[str, Any], cluster: ClusterConfig) -> list[Plain]:
    """A home for a user that the image does not know: pip, which the SDK starts, needs one."""
    chosen = cluster.component_user is not None and "runAsUser" not in asked
    return [pods.env_value("HOME", _HOME)] if chosen else []


def _writes(top: str, plan: StagingPlan) -> bool:
    """Whether a folder that the workload may write to is there."""
    return any(PurePosixPath(folder).is_relative_to(top) for folder in plan.folders)


# With the pod's seccomp profile it meets the "restricted" Pod Security Standard.
_RESTRICTED: Plain = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


def _user(asked: Mapping[str, Any], cluster: ClusterConfig) -> Plain:
    """The user and group of a component: the pipeline's, else the cluster's; empty: its image's.

    With runAsNonRoot alone it stays the image's user, which is unknown here.
    """
    said = {key: asked[key] for key in ("runAsUser", "runAsGroup") if key in asked}
    if "runAsUser" in asked or cluster.component_user is None:
        return said
    return {"runAsUser": cluster.component_user, "runAsGroup": cluster.run_as_group, **said}


def _security(asked: Mapping[str, Any], cluster: ClusterConfig) -> Plain:
    """Security context of a component, which runs as its image's user by default."""
    found = {**asked, **_user(asked, cluster), "allowPrivilegeEscalation": False}
    if found.get("runAsUser") or asked.get("runAsNonRoot"):
        return {**found, **_RESTRICTED}  # other users have no capabilities to lose
    return found


def requests(workload: Workload) -> tuple[float, float, int]:
    """Return the cores, the bytes of memory and the accelerators that a workload's pod reserves.

    Containers of the pod run one after the other: it reserves the largest request, and what its
    sidecar requests.
    """
    asked = workload.resources
    cpu = max(asked.cpu_request or asked.cpu or _LEAST_CPU, _STAGE_CPU)
    memory = max(asked.memory_request or asked.memory or _LEAST_MEMORY, _STAGE_MEMORY)
    if workload.sidecar:
        beside = workload.sidecar.resources
        cpu += beside.cpu_request or beside.cpu or _LEAST_CPU
        memory += beside.memory_request or beside.memory or _LEAST_MEMORY
    return cpu, memory, _accelerators(workload)


def _accelerators(workload: Workload) -> int:
    beside = workload.sidecar.resources.accelerators if workload.sidecar else 0
    return workload.resources.accelerators + beside


def _resources(workload: Workload, cluster: ClusterConfig, instances: InstanceSpec) -> Plain:
    asked = workload.resources
    # What lies on the node counts against one limit, volumes as well.
    disk = instances.boot_storage_gib * GIB
    if not cluster.storage_class:
        disk += instances.data_storage_gib * GIB
    # A namespace with a quota has no container that does not say what it requests.
    found = pods.resources(
        cpu=asked.cpu,
        memory=asked.memory,
        devices=_devices(asked, workload.name),
        disk=disk if instances.boot_storage_gib else 0,
        disk_request=disk,
        cpu_request=asked.cpu_request or (0 if asked.cpu else _LEAST_CPU),
        memory_request=asked.memory_request or (0 if asked.memory else _LEAST_MEMORY),
    )
    claims = [{"name": one["name"]} for one in workload.kubernetes.get("resourceClaims", ())]
    return {**found, "claims": claims} if claims else found


def _devices(asked: ResourceRequest, name: str) -> dict[str, int]:
    return {device(asked, name): asked.accelerators} if asked.accelerators else {}


def device(asked: ResourceRequest, name: str) -> str:
    """A cluster's name for the accelerators that the container ``name`` asks for.

    Raises:
        BadInputError: With the code ``ResourcesUnavailable``, if no cluster has such.
    """
    kind = asked.accelerator
    if "/" in kind:
        return kind
    if "nvidia" in kind.lower():
        return _NVIDIA
    raise BadInputError(
        f"{name} asks for {asked.accelerators} of {kind}, which is no device of a cluster.",
        "Name it as the nodes do, such as nvidia.com/gpu.",
        code="ResourcesUnavailable",
    )


def _stage(
    name: str, step: str, workload: Workload, cluster: ClusterConfig, ids: Iterable[str], base: str
) -> Plain:
    if not cluster.image:
        raise ClusterError(
            "The cluster's configuration names no image, and components' files are carried by "
            "one of Modelyard's.",
            "Set image in the file that MODELYARD_CLUSTER names.",
            code="ImageMissing",
        )
    return {
        "name": name,
        "image": cluster.image,
        "command": pods.escape_command(["python", "-P", "-m", _MODULE, step, base]),
        "workingDir": "/",  # the image's is its own user's alone
        "env": pods.merged_env([pods.env_value("HOME", VOLUME)], _platform_env(cluster, ids)),
        "resources": pods.resources(memory=_STAGE_MEMORY, cpu_request=_STAGE_CPU),
        "securityContext": _stage_security(
            workload.kubernetes.get("securityContext", {}), cluster
        ),
        "volumeMounts": [
            {"name": _STAGE, "mountPath": VOLUME},
            *(one.mount for one in pods.nas(cluster, ids)),
        ],
        **pods.of_our_image(cluster),
    }


def _stage_security(asked: Mapping[str, Any], cluster: ClusterConfig) -> Plain:
    """Whom our containers run as: the component's user if that is known, and never root.

    Where the component's image decides, they are another user than the component, most often.
    Folders are then open to both, and both are in the group of the volume. What the component
    makes its owner's alone cannot be sent on: see :func:`stage.send_on`.
    """
    chosen = _user(asked, cluster)
    if chosen.get("runAsUser"):
        return {**chosen, **_RESTRICTED}
    return {"runAsUser": cluster.run_as_user, "runAsGroup": cluster.run_as_group, **_RESTRICTED}


def _nas_ids(
    workload: Workload, cluster: ClusterConfig, plan: StagingPlan, base: str
) -> list[str]:
    """The network folders that the pod needs."""
    uris = [base, *workload.folders.values()]
    uris += [uri for pairs in (plan.fetched, plan.sent) for _, uri in pairs]
    return pods.nas_ids(cluster, {found.id for uri in uris if (found := parse_nas(uri))})


def _folder(path: str, uri: str, nas: Mapping[str, pods.MountedVolume]) -> Plain:
    """A folder of a network storage, mounted where the workload finds it."""
    found = parse_nas(uri)
    if found is None:
        raise BadInputError(
            f"{uri} is not a folder of a NAS, so nothing can be mounted at {path}.",
            "Give a nas:// URI.",
            code="FolderElsewhere",
        )
    mount: Plain = {"name": nas[found.id].mount["name"], "mountPath": path}
    below = found.path.strip("/")
    return {**mount, "subPath": below} if below else mount


def labels(flow_run_id: str, attempt: int) -> dict[str, str]:
    """The labels of all components of an attempt of a run."""
    return {
        **names.OURS,
        names.FLOW_RUN: names.label_value(flow_run_id),
        names.ATTEMPT: str(attempt),
        names.PART: "component",
    }
