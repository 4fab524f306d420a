"""What happens to an object between a request and the store."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.cluster import defaults, ownership, pod_security, quota, schemas, validation
from tests.cluster.kinds import Kind
from tests.cluster.refusals import Refusal, Wrong, bad_request, forbidden, unprocessable

if TYPE_CHECKING:
    from tests.cluster.store import Store

Object = dict[str, Any]
_ENDED = ("Succeeded", "Failed")


def decoded(
    row: Kind, obj: Mapping[str, Any], twice: list[str], *, strict: bool
) -> tuple[Object, list[str]]:
    """An object of its schema alone, and warnings of what it had besides.

    Raises:
        Refusal: 400, a value is of another type, or `strict` and a field is unknown.
    """
    pruned, findings = schemas.looked_at(row.kind, obj)
    cannot = f'{row.kind} in version "{row.version}" cannot be handled as a {row.kind}'
    if findings.misfits:
        raise bad_request(f"{cannot}: json: cannot unmarshal: {'; '.join(findings.misfits)}")
    unknown = [f'unknown field "{field}"' for field in findings.unknown]
    unknown += [f'duplicate field "{field}"' for field in twice]
    if unknown and strict:
        raise bad_request(f"{cannot}: strict decoding error: {', '.join(unknown)}")
    return pruned, unknown


def created(store: Store, row: Kind, new: Object, *, strict: bool = True) -> Object:
    """A new object as it will be kept.

    Raises:
        Refusal: It is not allowed.
    """
    new, _ = decoded(row, new, [], strict=strict)
    new = defaults.filled(store, row, new, {})
    if row.kind == "Pod":
        _account(store, row, new)
        quota.limited(store, row, new)
    _validated(row, new)
    if row.kind == "Pod":
        _secure(store, row, new)
    quota.check(store, row, new)
    return new


def _account(store: Store, row: Kind, pod: Object) -> None:
    meta, spec = pod["metadata"], pod["spec"]
    account, space = spec["serviceAccountName"], meta["namespace"]
    found = store.find("ServiceAccount", space, account)
    if found is None:
        told = (
            f"error looking up service account {space}/{account}: serviceaccount "
            f'"{account}" not found'
        )
        raise forbidden(row, meta.get("name", ""), told)
    if not spec.get("imagePullSecrets") and found.get("imagePullSecrets"):
        spec["imagePullSecrets"] = found["imagePullSecrets"]
    priority = spec.get("priorityClassName")
    if priority and store.find("PriorityClass", "", priority) is None:
        told = f"no PriorityClass with name {priority} was found"
        raise forbidden(row, meta.get("name", ""), told)


def _secure(store: Store, row: Kind, pod: Object) -> None:
    meta = pod["metadata"]
    space = store.find("Namespace", None, meta["namespace"]) or {"metadata": {}}
    level = (space["metadata"].get("labels") or {}).get(pod_security.ENFORCE, "")
    if told := pod_security.violations(level, pod["spec"]):
        why = f'violates PodSecurity "{level}:latest": {", ".join(told)}'
        raise forbidden(row, meta.get("name", ""), why)


def _validated(row: Kind, new: Object, more: list[Wrong] | None = None) -> None:
    _, findings = schemas.looked_at(row.kind, new)
    wrongs = [*validation.wrongs(row, new), *(more or ())]
    told = {wrong.field for wrong in wrongs}
    wrongs += [Wrong(field, "Required value") for field in findings.required if field not in told]
    for field, value, known in findings.unsupported:
        if field not in told:
            choices = ", ".join(f'"{one}"' for one in known)
            wrongs.append(
                Wrong(field, "Unsupported value", f'"{value}": supported values: {choices}')
            )
    if wrongs:
        raise unprocessable(row, new["metadata"].get("name", ""), wrongs)


def updated(
    store: Store, row: Kind, old: Object, new: Object, subresource: str, *, strict: bool = True
) -> Object:
    """A changed object as it will be kept.

    Raises:
        Refusal: The change is not allowed.
    """
    new, _ = decoded(row, new, [], strict=strict)
    if subresource == "status":
        return new
    if subresource:
        raise Refusal(405, "MethodNotAllowed", f"{subresource} is not written to here")
    new = defaults.filled(store, row, new, old)
    _validated(row, new, validation.frozen(row, old, new))
    return new


def owned(row: Kind, old: Object, new: Object, manager: str, subresource: str = "") -> Object:
    """An object whose managedFields say who wrote what; unchanged where nobody is named."""
    return ownership.updated(row, old, new, manager, subresource) if manager else new


def born(store: Store, row: Kind, new: Object) -> None:
    """What a cluster makes for a new object at once."""
    if row.kind == "Namespace":
        space = new["metadata"]["name"]
        store.create("ServiceAccount", {"metadata": {"name": "default", "namespace": space}})
        store.create(
            "ConfigMap",
            {"metadata": {"name": "kube-root-ca.crt", "namespace": space}, "data": {"ca.crt": ""}},
        )
    settled(store, row, {}, new)


def settled(store: Store, row: Kind, old: Object, new: Object) -> None:
    """What a cluster keeps up with a change: the counts of quotas."""
    if not row.namespaced or row.kind == "Event":
        return
    before, after = ((one.get("status") or {}).get("phase") for one in (old, new))
    if not old or before != after or row.kind == "ResourceQuota":
        quota.recount(store, new["metadata"]["namespace"])


def gone(store: Store, row: Kind, obj: Object) -> None:
    """What a cluster does when an object has gone."""
    settled(store, row, {}, copy.copy(obj))
