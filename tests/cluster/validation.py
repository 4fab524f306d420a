"""What the API server refuses beyond schemas: contradictions, and changes of what is fixed."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.cluster import job_checks, naming, pod_checks, selectors
from tests.cluster.kinds import Kind
from tests.cluster.refusals import Wrong, invalid, shown

Object = Mapping[str, Any]
_MOST_DATA = 1024 * 1024
_FIXED = "field is immutable"
_IMMUTABLE_JOB = (
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "successPolicy",
    "managedBy",
)
_IMMUTABLE_CLASS = ("provisioner", "parameters", "reclaimPolicy", "volumeBindingMode")


def wrongs(row: Kind, obj: Object) -> list[Wrong]:
    """What is wrong with an object."""
    found = list(naming.metadata(row, obj["metadata"]))
    rules = _RULES.get(row.kind)
    return found if rules is None else [*found, *rules(obj)]


def frozen(row: Kind, old: Object, new: Object) -> list[Wrong]:
    """What a change changes that may not be."""
    found = []
    had, has = (set(one["metadata"].get("finalizers") or ()) for one in (old, new))
    if "deletionTimestamp" in old["metadata"] and has - had:
        told = (
            "no new finalizers can be added if the object is being deleted, found new finalizers"
        )
        found.append(Wrong("metadata.finalizers", "Forbidden", f"{told} {sorted(has - had)}"))
    rules = _FROZEN.get(row.kind)
    return found if rules is None else [*found, *rules(old, new)]


def _pod(obj: Object) -> Iterator[Wrong]:
    return pod_checks.pod(obj.get("spec") or {}, "spec", obj["metadata"].get("name", ""))


def _deployment(obj: Object) -> Iterator[Wrong]:
    spec = obj.get("spec") or {}
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    yield from naming.labels(labels, "spec.template.labels")
    if not selectors.matches(spec.get("selector") or {}, labels) or not spec.get("selector"):
        why = "`selector` does not match template `labels`"
        yield invalid("spec.template.metadata.labels", str(labels), why)
    pod = template.get("spec") or {}
    yield from pod_checks.pod(pod, "spec.template.spec")
    always = pod.get("restartPolicy")
    yield from pod_checks.unsupported("spec.template.spec.restartPolicy", always, ("Always",))


def _service(obj: Object) -> Iterator[Wrong]:
    spec = obj.get("spec") or {}
    headless = spec.get("clusterIP") == "None"
    if not spec.get("ports") and not headless and spec.get("type") != "ExternalName":
        yield Wrong("spec.ports", "Required value")
    yield from naming.labels(spec.get("selector") or {}, "spec.selector")
    names: set[str] = set()
    for index, port in enumerate(spec.get("ports") or ()):
        at, name = f"spec.ports[{index}]", port.get("name", "")
        if not 1 <= port.get("port", 0) <= 65535:
            why = "must be between 1 and 65535, inclusive"
            yield invalid(f"{at}.port", port.get("port", 0), why)
        if not name and len(spec["ports"]) > 1:
            yield Wrong(f"{at}.name", "Required value")
        if name in names:
            yield Wrong(f"{at}.name", "Duplicate value", shown(name))
        names.add(name)


def _data(obj: Object) -> Iterator[Wrong]:
    entries = {**(obj.get("data") or {}), **(obj.get("binaryData") or {})}
    for key in entries:
        if not re.fullmatch(r"[-._a-zA-Z0-9]+", key) or len(key) > 253 or key in (".", ".."):
            why = (
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
                "(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is "
                "'[-._a-zA-Z0-9]+')"
            )
            yield invalid(f"data[{key}]", key, why)
    if sum(len(value) for value in entries.values()) > _MOST_DATA:
        yield Wrong("data", "Too long", f"may not be more than {_MOST_DATA} bytes")


def _claim(obj: Object) -> Iterator[Wrong]:
    return pod_checks.claim_spec(obj.get("spec") or {}, "spec")


def _quota(obj: Object) -> Iterator[Wrong]:
    spec = obj.get("spec") or {}
    for name, value in (spec.get("hard") or {}).items():
        yield from naming.amount(value, f"spec.hard[{name}]")
    for scope in ("scopes", "scopeSelector"):
        if scope in spec:
            yield Wrong(f"spec.{scope}", "Forbidden", "not served by this small cluster")


def _event(obj: Object) -> Iterator[Wrong]:
    about = (obj.get("involvedObject") or {}).get("namespace", "")
    if (about or "default") != obj["metadata"]["namespace"]:
        yield invalid("involvedObject.namespace", about, "does not match event.namespace")


_RULES: dict[str, Callable[[Object], Iterator[Wrong]]] = {
    "Pod": _pod,
    "Job": job_checks.job,
    "Deployment": _deployment,
    "Service": _service,
    "Secret": _data,
    "ConfigMap": _data,
    "PersistentVolumeClaim": _claim,
    "ResourceQuota": _quota,
    "Event": _event,
}


def _pod_frozen(old: Object, new: Object) -> Iterator[Wrong]:
    if _movable(old["spec"], new["spec"]) != new["spec"]:
        yield Wrong(
            "spec",
            "Forbidden",
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
            "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to "
            "be set to 1 if it was previously negative)",
        )


def _movable(old: Object, new: Object) -> dict[str, Any]:
    """The old spec with what a pod may change as the new one has it."""
    spec = copy.deepcopy(dict(old))
    for key in ("containers", "initContainers"):
        for had, has in zip(spec.get(key, ()), new.get(key, ()), strict=False):
            had["image"] = has.get("image")
    before, after = old.get("activeDeadlineSeconds"), new.get("activeDeadlineSeconds")
    if after is not None and (before is None or after <= before):
        spec["activeDeadlineSeconds"] = after
    had, has = old.get("tolerations") or [], new.get("tolerations") or []
    if has and all(one in has for one in had):
        spec["tolerations"] = has
    return spec


def _job_frozen(old: Object, new: Object) -> Iterator[Wrong]:
    before, after = old["spec"], new["spec"]
    for key in _IMMUTABLE_JOB:
        if before.get(key) != after.get(key):
            yield invalid(f"spec.{key}", after.get(key), _FIXED)
    elastic = after.get("completionMode") == "Indexed" and (
        after.get("completions") == after.get("parallelism")
    )
    if before.get("completions") != after.get("completions") and not elastic:
        yield invalid("spec.completions", after.get("completions"), _FIXED)
    never_began = before.get("suspend") and not (old.get("status") or {}).get("startTime")
    if before.get("template") != after.get("template") and not never_began:
        yield invalid("spec.template", "", _FIXED)


def _claim_frozen(old: Object, new: Object) -> Iterator[Wrong]:
    before, after = (copy.deepcopy(dict(one["spec"])) for one in (old, new))
    for one in (before, after):
        one.pop("volumeAttributesClassName", None)
        ((one.get("resources") or {}).get("requests") or {}).pop("storage", None)
    if not before.get("volumeName"):
        before["volumeName"] = after.get("volumeName")
        if before["volumeName"] is None:
            del before["volumeName"]
    if before != after:
        yield Wrong(
            "spec",
            "Forbidden",
            "spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims",
        )


def _service_frozen(old: Object, new: Object) -> Iterator[Wrong]:
    before, after = (one["spec"].get("clusterIP") for one in (old, new))
    if before and before != after:
        yield invalid("spec.clusterIPs[0]", [after], "may not change once set")


def _data_frozen(old: Object, new: Object) -> Iterator[Wrong]:
    if old.get("type") != new.get("type"):
        yield invalid("type", new.get("type"), _FIXED)
    if not old.get("immutable"):
        return
    for key in ("immutable", "data", "binaryData"):
        if old.get(key) != new.get(key):
            yield Wrong(key, "Forbidden", "field is immutable when `immutable` is set")


def _selector_frozen(old: Object, new: Object) -> Iterator[Wrong]:
    if old["spec"].get("selector") != new["spec"].get("selector"):
        yield invalid("spec.selector", new["spec"].get("selector"), _FIXED)


def _class_frozen(old: Object, new: Object) -> Iterator[Wrong]:
    for key in _IMMUTABLE_CLASS:
        if old.get(key) != new.get(key):
            yield Wrong(key, "Forbidden", f"updates to {key} are forbidden.")


def _role_frozen(old: Object, new: Object) -> Iterator[Wrong]:
    if old.get("roleRef") != new.get("roleRef"):
        yield invalid("roleRef", new.get("roleRef"), "cannot change roleRef")


_FROZEN: dict[str, Callable[[Object, Object], Iterator[Wrong]]] = {
    "Pod": _pod_frozen,
    "Job": _job_frozen,
    "PersistentVolumeClaim": _claim_frozen,
    "Service": _service_frozen,
    "Secret": _data_frozen,
    "ConfigMap": _data_frozen,
    "Deployment": _selector_frozen,
    "StorageClass": _class_frozen,
    "RoleBinding": _role_frozen,
    "ClusterRoleBinding": _role_frozen,
}
