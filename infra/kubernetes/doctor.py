"""Checks of a cluster against the requirements of runs, each with a remedy.

:func:`examine` observes the cluster, pure functions judge the observations. Of Secrets and
ConfigMaps only the names of keys are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.instance_types import DEFAULT, InstanceType
from infra.kubernetes import capacity as capacities
from infra.kubernetes import secret_checks
from infra.kubernetes.api import Api, Objects
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import Placement
from infra.kubernetes.capacity import Capacity
from infra.kubernetes.checks import Check, not_visible
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.quantities import parse_quantity
from infra.kubernetes.secret_checks import Secrets
from infra.kubernetes.transport import RetryPolicy

_OLDEST = (1, 33)  # the first whose Jobs have successPolicy without a feature gate
_PATIENCE = RetryPolicy(attempts=3, seconds=10.0)
# With these every further request would fail alike.
_FATAL = {"KubeconfigMissing", "Unauthorized", "ApiUnreachable", "CertificateInvalid"}

_GPU = "nvidia.com/"
_PCI = re.compile(r"feature\.node\.kubernetes\.io/pci-.*10de.*\.present")  # NVIDIA's vendor id
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_POD_SECURITY = "pod-security.kubernetes.io/enforce"
_SHARED = {"ReadWriteMany", "ReadOnlyMany"}


@dataclass(frozen=True)
class Permission:
    """Verbs that the worker needs on one kind of object."""

    resource: str
    verbs: tuple[str, ...]
    group: str = ""
    subresource: str = ""
    lost: str = ""  # what is lost without; "" where nothing goes without

    @property
    def role_name(self) -> str:
        """Name of the resource in roles."""
        whole = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{whole}.{self.group}" if self.group else whole


RIGHTS = (
    Permission("jobs", ("create", "get", "list", "delete"), "batch"),
    Permission("pods", ("get", "list", "delete")),
    Permission("pods", ("get",), subresource="log"),
    Permission("services", ("create", "get", "delete")),
    Permission("events", ("list",)),
    Permission("resourcequotas", ("list",)),
    Permission(
        "nodes",
        ("list",),
        lost="A run that no node is large enough for waits in vain until it is given up.",
    ),
)


def examine(
    cluster: ClusterConfig, types: Mapping[str, InstanceType], published: Secrets | None = None
) -> list[Check]:
    """Check a cluster; what cannot be read becomes a check of its own.

    Args:
        cluster: Its configuration.
        types: The instance types by name.
        published: Facts about Secrets from the last deployment, for accounts that may not read
            them.
    """
    try:
        api = Api.connect(cluster, patience=_PATIENCE)
        release = api.version()
    except ClusterError as error:
        return [Check("access", "failed", error.message, error.hint)]
    where = f"{api.server}, namespace {api.namespace}, by {api.origin}."
    checks = [Check("access", "ok", where), version(release), image(cluster)]

    def look_at_secrets(api: Api, cluster: ClusterConfig, _: _Types) -> Iterator[Check]:
        return _look_at_secrets(api, cluster, published or {})

    for name, look in {**_SECTIONS, "secrets": look_at_secrets}.items():
        try:
            checks += look(api, cluster, types)
        except ClusterError as error:
            if error.code != "Forbidden":
                checks.append(Check(name, "failed", error.message, error.hint))
                if error.code in _FATAL:
                    break
            else:
                checks.append(not_visible(name))
    return checks


def version(release: str) -> Check:
    """Check that the server is new enough."""
    match = re.match(r"v?(\d+)\.(\d+)", release)
    oldest = ".".join(map(str, _OLDEST))
    if match is None:
        return Check(
            "version", "warning", f"{release!r} is not a version.", f"It must be {oldest}."
        )
    if (int(match[1]), int(match[2])) < _OLDEST:
        return Check(
            "version",
            "failed",
            f"Kubernetes {release} has no successPolicy of Jobs, by which runs of several nodes "
            "end.",
            f"Update the cluster to {oldest} or later.",
        )
    return Check("version", "ok", f"Kubernetes {release}.")


def image(cluster: ClusterConfig) -> Check:
    """Check that runs have an image."""
    if cluster.image:
        return Check("image", "ok", f"{cluster.image}.")
    remedy = "Set image in the cluster file."
    return Check("image", "warning", "Runs that name no image cannot start.", remedy)


def namespace(cluster: ClusterConfig, name: str, found: Mapping[str, Any] | None) -> Check:
    """Check that the namespace exists and admits the pods of runs."""
    if found is None:
        remedy = f"Make it (kubectl create namespace {name}), or name another."
        return Check("namespace", "failed", f"There is no namespace {name}.", remedy)
    if found.get("status", {}).get("phase") == "Terminating":
        remedy = "Wait until it is gone and make it anew, or name another."
        return Check("namespace", "failed", f"The namespace {name} is being deleted.", remedy)
    level = (found["metadata"].get("labels") or {}).get(_POD_SECURITY, "")
    exports = sorted(id_ for id_, volume in cluster.nas.items() if volume.server)
    if level == "restricted" and exports:
        return Check(
            "namespace",
            "failed",
            f"The namespace {name} admits restricted pods only, which mount no NFS server: "
            f"{', '.join(exports)} of nas.",
            "Give these as claim of a volume, or label the namespace baseline.",
        )
    if level == "restricted" and cluster.component_user is None:
        return Check(
            "namespace",
            "warning",
            f"The namespace {name} admits restricted pods only. Trainings are such; components of "
            "pipelines are users of their images, and refused unless they say another one.",
            "Set component_user in the cluster file, or give components a security context "
            "(set_security_context of kfp-kubernetes).",
        )
    return Check("namespace", "ok", f"{name} is there{f' ({level} pods)' if level else ''}.")


def right(wanted: Permission, missing: Iterable[str]) -> Check:
    """Check that the account has the permissions of the worker."""
    name = f"may: {wanted.role_name}"
    lacking = ", ".join(missing)
    if not lacking:
        return Check(name, "ok", f"{', '.join(wanted.verbs)}.")
    remedy = f"Let a role of the account allow {lacking} of {wanted.role_name}."
    if wanted.lost:
        return Check(name, "warning", f"Not allowed: {lacking}. {wanted.lost}", remedy)
    return Check(name, "failed", f"Not allowed: {lacking}.", remedy)


def nodes(cluster: ClusterConfig, found: Objects) -> Iterator[Check]:
    """Check that nodes are ready, and that GPU nodes have GPU labels."""
    unready = [_name(node) for node in found if not _is_ready(node)]
    if unready:
        remedy = "See kubectl describe node; until then runs use the other nodes."
        yield Check("nodes", "warning", f"Not ready: {_few(unready)}.", remedy)
    ready = len(found) - len(unready)
    if ready or cluster.nodes_may_come:
        yield Check("nodes", "ok", f"{ready} ready.")
    else:
        yield Check(
            "nodes", "failed", "No node is ready.", "Add a node, or fix the existing ones."
        )
    mute = [_name(node) for node in found if _has_gpu_labels(node) and not _gpus(node)]
    if mute:
        yield Check(
            "device plugin",
            "failed",
            f"Nodes with NVIDIA's labels have no {_GPU}gpu to give: {_few(mute)}.",
            "Install NVIDIA's GPU operator or device plugin, or see its pods on these nodes.",
        )
    counts = [sum(_gpus(node).values()) for node in found if _gpus(node)]
    if counts:
        yield Check("gpus", "ok", f"{sum(counts):g} in {len(counts)} nodes.")
    elif not mute and not cluster.nodes_may_come:
        remedy = "Add a node with GPUs; runs of instance types without GPUs are not affected."
        yield Check("gpus", "warning", "No node has a GPU.", remedy)


_LACKING: Mapping[str, str] = {
    "NodesLackGpu": "no node has their GPUs",
    "NodesLackLabels": "no node has their labels",
    "NodesTooSmall": "no node is as large",
    "QuotaExceeded": "the namespace's quota is smaller",
    "PoolLimitExceeded": "most_gpus is lower",
}


def instance_types(types: Mapping[str, InstanceType], capacity: Capacity) -> Iterator[Check]:
    """Check which instance types the cluster can satisfy, with one node of each."""
    name = "instance types"
    problems = {
        one: capacities.find_shortage(Placement(shape), one, capacity)
        for one, shape in types.items()
    }
    given = [one for one, problem in problems.items() if problem is None]
    if given:
        yield Check(name, "ok", f"There is room for {', '.join(given)}.")
    lacking: dict[str, list[str]] = {}
    for one, problem in problems.items():
        if problem and one != DEFAULT:
            lacking.setdefault(problem.code, []).append(one)
    if lacking:
        summary = "; ".join(
            f"{', '.join(names)} ({_LACKING.get(code, code)})" for code, names in lacking.items()
        )
        # A cluster with other GPUs need not have a T4.
        fine = lacking.keys() == {"NodesLackGpu"} and any(types[one].gpus for one in given)
        yield Check(
            name,
            "ok" if fine else "warning",
            f"Runs of these would be refused: {summary}.",
            ""
            if fine
            else "Compare the types' sizes, node_selector and tolerations with the nodes.",
        )
    if problem := problems.get(DEFAULT):
        yield Check(f"type {DEFAULT}", "failed", problem.message, problem.hint)


def storage_class(cluster: ClusterConfig, found: Objects) -> Check:
    """Check that the storage class of data storage exists."""
    name = "storage class"
    by_name = {_name(one): one for one in found}
    default = [
        one
        for one, thing in by_name.items()
        if (thing["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
    ]
    summary = f"The default class is {default[0]}." if default else "There is no default class."
    wanted = cluster.storage_class
    if not wanted:
        return Check(name, "ok", f"Data storage is room on the node's own disk. {summary}")
    if wanted not in by_name:
        remedy = f"Set storage_class to one of: {', '.join(sorted(by_name)) or 'none'}."
        return Check(name, "failed", f"There is no storage class {wanted}.", remedy)
    return Check(name, "ok", f"{wanted} is there. {summary}")


def claim(id_: str, name: str, found: Mapping[str, Any] | None) -> Check:
    """Check that a claim exists and can be mounted by several pods."""
    check = f"nas {id_}"
    if found is None:
        remedy = "Make it, or correct nas in the cluster file."
        return Check(check, "failed", f"There is no volume claim {name}.", remedy)
    phase = found.get("status", {}).get("phase", "")
    if phase != "Bound":
        return Check(
            check,
            "failed" if phase == "Lost" else "warning",
            f"The volume claim {name} is {phase or 'new'}, not Bound.",
            "See kubectl describe pvc; some classes bind only when the first pod mounts it.",
        )
    modes = found.get("spec", {}).get("accessModes") or []
    if not _SHARED.intersection(modes):
        return Check(
            check,
            "warning",
            f"The volume claim {name} is {', '.join(modes)}: pods of one node at a time have it.",
            "Use a volume that is ReadWriteMany where runs of several nodes mount it.",
        )
    return Check(check, "ok", f"{name} is bound.")


def quota(found: Mapping[str, Any]) -> Check:
    """Report what a quota of the namespace leaves."""
    status = found.get("status", {})
    hard = status.get("hard") or found.get("spec", {}).get("hard") or {}
    used = status.get("used") or {}
    summary = ", ".join(f"{name} {used.get(name, '0')} of {most}" for name, most in hard.items())
    full = [
        name
        for name, most in hard.items()
        if parse_quantity(used.get(name, 0)) >= parse_quantity(most)
    ]
    name = f"quota {_name(found)}"
    if full:
        remedy = "New runs wait until others have ended, or the quota is raised."
        return Check(name, "warning", f"Used up: {', '.join(full)} ({summary}).", remedy)
    return Check(name, "ok", f"{summary}.")


def limit_range(found: Mapping[str, Any]) -> Check:
    """Report what a LimitRange of the namespace allows."""
    summary = [
        f"{one.get('type')} {bound} {resource} {amount}"
        for one in found.get("spec", {}).get("limits") or []
        for bound in ("min", "max")
        for resource, amount in (one.get(bound) or {}).items()
    ]
    return Check(f"limits {_name(found)}", "ok", f"{', '.join(summary) or 'Defaults only'}.")


def _name(thing: Mapping[str, Any]) -> str:
    return str(thing["metadata"]["name"])


def _few(names: list[str]) -> str:
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more} more" if more > 0 else "")


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _has_gpu_labels(node: Mapping[str, Any]) -> bool:
    labels = node["metadata"].get("labels") or {}
    return any(
        value != "false" and (key.startswith(f"{_GPU}gpu") or _PCI.fullmatch(key))
        for key, value in labels.items()
    )


def _gpus(node: Mapping[str, Any]) -> dict[str, float]:
    """Allocatable GPUs of a node, whole ones and MIG slices."""
    allocatable = node.get("status", {}).get("allocatable") or {}
    found = {name: parse_quantity(amount) for name, amount in allocatable.items() if _GPU in name}
    return {name: amount for name, amount in found.items() if amount}


_Types = Mapping[str, InstanceType]


def _look_at_namespace(api: Api, cluster: ClusterConfig, _: _Types) -> Iterator[Check]:
    yield namespace(cluster, api.namespace, api.read("Namespace", api.namespace))


def _look_at_rights(api: Api, _: ClusterConfig, __: _Types) -> Iterator[Check]:
    for wanted in RIGHTS:
        refused = [
            verb
            for verb in wanted.verbs
            if not api.may(verb, wanted.resource, wanted.group, wanted.subresource)
        ]
        yield right(wanted, refused)


def _look_at_nodes(api: Api, cluster: ClusterConfig, _: _Types) -> Iterator[Check]:
    yield from nodes(cluster, api.list("Node"))


def _look_at_types(api: Api, cluster: ClusterConfig, types: _Types) -> Iterator[Check]:
    yield from instance_types(types, capacities.read(api, cluster, types))


def _look_at_storage(api: Api, cluster: ClusterConfig, _: _Types) -> Iterator[Check]:
    yield storage_class(cluster, api.list("StorageClass"))


def _look_at_claims(api: Api, cluster: ClusterConfig, _: _Types) -> Iterator[Check]:
    for id_, volume in cluster.nas.items():
        if volume.claim:
            yield claim(id_, volume.claim, api.read("PersistentVolumeClaim", volume.claim))


def _look_at_account(api: Api, cluster: ClusterConfig, _: _Types) -> Iterator[Check]:
    wanted = cluster.service_account
    if wanted and api.read("ServiceAccount", wanted) is None:
        remedy = "Make it, or correct service_account in the cluster file."
        yield Check("service account", "failed", f"There is no {wanted}.", remedy)


def _look_at_secrets(api: Api, cluster: ClusterConfig, published: Secrets) -> Iterator[Check]:
    config_map: frozenset[str] | None = None
    if cluster.config_map:
        try:
            found = api.read("ConfigMap", cluster.config_map)
        except ClusterError as error:
            if error.code != "Forbidden":
                raise
        else:
            config_map = frozenset((found or {}).get("data") or ())
            if found is None:
                remedy = "Make it, or correct the cluster file."
                message = f"There is no ConfigMap {cluster.config_map}."
                yield Check("variables", "failed", message, remedy)
    secrets = {**published, **secret_checks.inspect(api, cluster)}
    yield from secret_checks.check(cluster, secrets, config_map)


def _look_at_quotas(api: Api, _: ClusterConfig, __: _Types) -> Iterator[Check]:
    yield from map(quota, api.list("ResourceQuota"))
    yield from map(limit_range, api.list("LimitRange"))


_SECTIONS: Mapping[str, Callable[[Api, ClusterConfig, _Types], Iterator[Check]]] = {
    "namespace": _look_at_namespace,
    "rights": _look_at_rights,
    "nodes": _look_at_nodes,
    "instance types": _look_at_types,
    "storage class": _look_at_storage,
    "nas": _look_at_claims,
    "service account": _look_at_account,
    "quotas": _look_at_quotas,
}
