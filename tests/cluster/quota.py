"""ResourceQuotas and LimitRanges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tests.cluster.kinds import KINDS, Kind
from tests.cluster.quantities import pod_requests, quantity
from tests.cluster.refusals import forbidden

if TYPE_CHECKING:
    from tests.cluster.store import Store

Object = Mapping[str, Any]
_COUNTED = (
    "services",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "resourcequotas",
)
_PLAIN = ("cpu", "memory", "ephemeral-storage")


def check(store: Store, row: Kind, new: Object) -> None:
    """Refuses a new object that its namespace's quotas have no room for.

    Raises:
        Refusal: 403, with the numbers.
    """
    if not row.namespaced:
        return
    meta = new["metadata"]
    wanted = _usage(row, new)
    for quota in store.each("ResourceQuota", meta["namespace"]):
        hard, name = (quota.get("spec") or {}).get("hard") or {}, quota["metadata"]["name"]
        if row.kind == "Pod":
            _named(row, new, hard, name)
        used = _used(store, meta["namespace"], hard)
        over = [
            key
            for key in sorted(hard)
            if wanted.get(key) and used[key] + wanted[key] > quantity(str(hard[key]))
        ]
        if over:
            told = (
                f"exceeded quota: {name}",
                _list("requested", {key: _text(key, wanted[key]) for key in over}),
                _list("used", {key: _text(key, used[key]) for key in over}),
                _list("limited", {key: str(hard[key]) for key in over}),
            )
            raise forbidden(row, meta["name"], ", ".join(told))


def _list(word: str, amounts: Mapping[str, str]) -> str:
    return f"{word}: " + ",".join(f"{key}={text}" for key, text in amounts.items())


def _named(row: Kind, pod: Object, hard: Object, quota: str) -> None:
    """A quota on cpu or memory wants every container to say how much."""
    missing = []
    for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
        resources = container.get("resources") or {}
        for key in sorted(hard):
            kind, _, name = key.partition(".")
            if key in ("cpu", "memory"):
                kind, name = "requests", key
            if kind not in ("requests", "limits") or name not in ("cpu", "memory"):
                continue
            if name not in (resources.get(kind) or {}):
                missing.append(f"{key} for: {container['name']}")
    if missing:
        told = f"failed quota: {quota}: must specify {'; '.join(missing)}"
        raise forbidden(row, pod["metadata"]["name"], told)


def recount(store: Store, namespace: str) -> None:
    """Writes what is used into the status of a namespace's quotas."""
    for quota in store.list("ResourceQuota", namespace):
        hard = (quota.get("spec") or {}).get("hard") or {}
        used = _used(store, namespace, hard)
        status = {"hard": hard, "used": {key: _text(key, used[key]) for key in hard}}
        if quota.get("status") != status:
            store.set_status("ResourceQuota", namespace, quota["metadata"]["name"], status)


def _used(store: Store, namespace: str, hard: Object) -> dict[str, Fraction]:
    used = dict.fromkeys(hard, Fraction(0))
    for (kind, place, _), obj in store.objects.items():
        if place != namespace:
            continue
        for key, amount in _usage(KINDS[kind], obj).items():
            if key in used:
                used[key] += amount
    return used


def _usage(row: Kind, obj: Object) -> dict[str, Fraction]:
    """What one object counts for, under each key that a quota may have."""
    usage = {f"count/{row.resource}": Fraction(1)}
    if row.plural in _COUNTED and not row.group:
        usage[row.plural] = Fraction(1)
    if row.kind == "PersistentVolumeClaim":
        asked = ((obj["spec"].get("resources") or {}).get("requests") or {}).get("storage", 0)
        usage["requests.storage"] = quantity(str(asked))
    ended = (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if row.kind == "Pod" and not ended:
        usage["pods"] = Fraction(1)
        usage |= dict(_of_pod(obj["spec"]))
    return usage


def _of_pod(spec: Object) -> Iterator[tuple[str, Fraction]]:
    for name, amount in pod_requests(spec).items():
        yield f"requests.{name}", amount
        if name in _PLAIN:
            yield name, amount
    limits: dict[str, Fraction] = {}
    for container in spec["containers"]:
        for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
            limits[name] = limits.get(name, Fraction(0)) + quantity(str(value))
    for name, amount in limits.items():
        if name in _PLAIN:
            yield f"limits.{name}", amount


def _text(key: str, amount: Fraction) -> str:
    """An amount, in the largest unit that keeps it whole."""
    if amount.denominator != 1:
        return f"{-int(-amount * 1000 // 1)}m"
    number = int(amount)
    if number and ("memory" in key or "storage" in key):
        for suffix, size in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
            if number % size == 0:
                return f"{number // size}{suffix}"
    return str(number)


def limited(store: Store, row: Kind, pod: dict[str, Any]) -> None:
    """Gives a pod's containers what the namespace's LimitRanges say; refuses what they forbid.

    Raises:
        Refusal: 403, a container or the pod is over a maximum or under a minimum.
    """
    name = pod["metadata"].get("name", "")
    for one in store.each("LimitRange", pod["metadata"]["namespace"]):
        for limit in (one.get("spec") or {}).get("limits") or ():
            if limit["type"] == "Container":
                for container in pod["spec"].get("containers") or ():
                    resources = container.setdefault("resources", {})
                    _default(resources, limit)
                    _within(row, name, "Container", resources, limit)
            elif limit["type"] == "Pod":
                _within(row, name, "Pod", _whole(pod["spec"]), limit)


def _default(resources: dict[str, Any], limit: Object) -> None:
    limits = {**(limit.get("default") or {}), **(resources.get("limits") or {})}
    requests = {**(limit.get("defaultRequest") or {}), **(resources.get("requests") or {})}
    for name, value in limits.items():
        requests.setdefault(name, value)
    both = {"limits": limits, "requests": requests}
    resources.update({key: amounts for key, amounts in both.items() if amounts})


def _whole(spec: Object) -> Object:
    total: dict[str, dict[str, Fraction]] = {"limits": {}, "requests": {}}
    for container in spec.get("containers") or ():
        for key, amounts in total.items():
            for name, value in ((container.get("resources") or {}).get(key) or {}).items():
                amounts[name] = amounts.get(name, Fraction(0)) + quantity(str(value))
    return total


def _within(row: Kind, pod: str, type_: str, resources: Object, limit: Object) -> None:
    for bound, key, word, noun in (
        ("min", "requests", "minimum", "request"),
        ("max", "limits", "maximum", "limit"),
    ):
        for name, value in (limit.get(bound) or {}).items():
            given = (resources.get(key) or {}).get(name)
            told = f"{word} {name} usage per {type_} is {value}"
            if given is None:
                raise forbidden(row, pod, f"{told}.  No {noun} is specified")
            amount = given if isinstance(given, Fraction) else quantity(str(given))
            beyond = amount < quantity(value) if bound == "min" else amount > quantity(value)
            if beyond:
                shown = _text(name, amount) if isinstance(given, Fraction) else given
                raise forbidden(row, pod, f"{told}, but {noun} is {shown}")
