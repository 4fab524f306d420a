"""What the API server fills in."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tests.cluster.kinds import Kind

if TYPE_CHECKING:
    from tests.cluster.store import Store

Object = dict[str, Any]

_addresses = itertools.count(10)
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_PROBES = {
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "successThreshold": 1,
    "failureThreshold": 3,
}
_LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_MODED = ("secret", "configMap", "projected", "downwardAPI")


def filled(store: Store, row: Kind, obj: Object, old: Object) -> Object:
    """The object with defaults; changed in place, and returned. `old` is empty for a new one."""
    fill = _FILLS.get(row.kind)
    if fill is not None:
        fill(store, obj, old)
    return obj


def _under(obj: Object, key: str) -> Object:
    found = obj.setdefault(key, {})
    return found if isinstance(found, dict) else {}


def pod_spec(spec: Object) -> None:
    """The defaults of a pod's spec, also in templates."""
    for key, value in (
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("terminationGracePeriodSeconds", 30),
        ("schedulerName", "default-scheduler"),
        ("securityContext", {}),
    ):
        spec.setdefault(key, value)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        _container(container)
    for volume in spec.get("volumes", ()):
        if set(volume) <= {"name"}:
            volume["emptyDir"] = {}
        for kind in _MODED:
            if kind in volume:
                volume[kind].setdefault("defaultMode", 420)


def _container(container: Object) -> None:
    image = container.get("image", "")
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    latest = "@" not in image and tag in ("", "latest")
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = _under(container, "resources")
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    for port in container.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", ()):
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            container[probe] = {**_PROBES, **container[probe]}


def _pod(store: Store, obj: Object, old: Object) -> None:
    spec = _under(obj, "spec")
    spec["serviceAccountName"] = (
        spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    )
    pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("priority", _priority(store, spec))
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    had = {(one.get("key"), one.get("effect")) for one in spec.get("tolerations", ())}
    wanted = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        for key in _LOST
        if not {(key, "NoExecute"), (key, None), (None, None)} & had
    ]
    if wanted and not old:
        spec["tolerations"] = [*spec.get("tolerations", ()), *wanted]
    obj.setdefault("status", {"phase": "Pending", "qosClass": _quality(spec)})


def _priority(store: Store, spec: Mapping[str, Any]) -> int:
    named = store.find("PriorityClass", "", spec.get("priorityClassName", ""))
    return int(named["value"]) if named else 0


def _quality(spec: Mapping[str, Any]) -> str:
    every = [
        one.get("resources") or {}
        for one in (*spec.get("containers", ()), *spec.get("initContainers", ()))
    ]
    if not any(one.get("requests") or one.get("limits") for one in every):
        return "BestEffort"
    guaranteed = all(
        (one.get("limits") or {}).get(name)
        and (one.get("requests") or {}).get(name) == one["limits"][name]
        for one in every
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _template(spec: Object) -> Object:
    template = _under(spec, "template")
    pod_spec(_under(template, "spec"))
    return template


def _job(_: Store, obj: Object, old: Object) -> None:
    spec = _under(obj, "spec")
    template = _template(spec)
    if "parallelism" not in spec and "completions" not in spec:
        spec["completions"] = 1
    by_policy = "podFailurePolicy" in spec
    for key, value in (
        ("parallelism", 1),
        ("backoffLimit", 2**31 - 1 if "backoffLimitPerIndex" in spec else 6),
        ("completionMode", "NonIndexed"),
        ("suspend", False),
        ("manualSelector", False),
        ("podReplacementPolicy", "Failed" if by_policy else "TerminatingOrFailed"),
    ):
        spec.setdefault(key, value)
    if spec["manualSelector"] or old:
        return
    uid, name = obj["metadata"]["uid"], obj["metadata"].get("name", "")
    spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    labels = _under(_under(template, "metadata"), "labels")
    for prefix in ("", "batch.kubernetes.io/"):
        labels[f"{prefix}controller-uid"] = uid
        labels[f"{prefix}job-name"] = name


def _deployment(_: Store, obj: Object, __: Object) -> None:
    spec = _under(obj, "spec")
    _template(spec)
    rolling = {"maxSurge": "25%", "maxUnavailable": "25%"}
    for key, value in (
        ("replicas", 1),
        ("revisionHistoryLimit", 10),
        ("progressDeadlineSeconds", 600),
        ("strategy", {"type": "RollingUpdate", "rollingUpdate": rolling}),
    ):
        spec.setdefault(key, value)


def _service(_: Store, obj: Object, old: Object) -> None:
    spec = _under(obj, "spec")
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] != "ExternalName":
        if not spec.get("clusterIP") and old:
            spec["clusterIP"] = old["spec"].get("clusterIP")
        elif not spec.get("clusterIP"):
            number = next(_addresses)
            spec["clusterIP"] = f"10.96.{number // 250 % 250}.{number % 250 + 1}"
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
    obj.setdefault("status", {"loadBalancer": {}})


def _claim(store: Store, obj: Object, old: Object) -> None:
    spec = _under(obj, "spec")
    spec.setdefault("volumeMode", "Filesystem")
    if "storageClassName" not in spec and not old:
        for one in store.each("StorageClass"):
            if (one["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true":
                spec["storageClassName"] = one["metadata"]["name"]
    obj.setdefault("status", {"phase": "Pending"})


def _secret(_: Store, obj: Object, __: Object) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None) or {}
    if plain:
        coded = {key: base64.b64encode(str(text).encode()).decode() for key, text in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **coded}


def _namespace(_: Store, obj: Object, old: Object) -> None:
    labels = _under(obj["metadata"], "labels")
    labels["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
    if not old:
        obj.setdefault("spec", {"finalizers": ["kubernetes"]})
    obj.setdefault("status", {"phase": "Active"})


def _storage_class(_: Store, obj: Object, __: Object) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def _quota(_: Store, obj: Object, __: Object) -> None:
    obj.setdefault("status", {})


_FILLS: dict[str, Callable[[Any, Object, Object], None]] = {
    "Pod": _pod,
    "Job": _job,
    "Deployment": _deployment,
    "StatefulSet": lambda _, obj, __: _template(_under(obj, "spec")),
    "DaemonSet": lambda _, obj, __: _template(_under(obj, "spec")),
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "Secret": _secret,
    "Namespace": _namespace,
    "StorageClass": _storage_class,
    "ResourceQuota": _quota,
}
