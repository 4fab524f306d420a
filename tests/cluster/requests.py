"""Requests that read or change objects."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import yaml
from aiohttp import web

from tests.cluster import admission, applying, patching, selectors
from tests.cluster.kinds import Kind
from tests.cluster.refusals import Expired, Refusal, bad_request
from tests.cluster.routes import Route, number
from tests.cluster.store import Object, Store

_APPLY = "application/apply-patch+yaml"
_STYLES = (patching.MERGE, patching.STRATEGIC, patching.JSON, _APPLY)
#: Kinds whose deleted object is the answer, also when it has gone at once.
_RETURNED = (
    "Pod",
    "Service",
    "ServiceAccount",
    "PodTemplate",
    "PersistentVolumeClaim",
    "ResourceQuota",
)
#: Kinds whose dependents stay where the request says nothing of them, as batch/v1 has it.
_ORPHANED = ("Job", "CronJob")
_VALIDATIONS = ("", "Strict", "Warn", "Ignore")


async def body(request: web.BaseRequest) -> tuple[dict[str, Any], list[str]]:
    """The object of a request, and its keys that stand twice.

    Raises:
        Refusal: 400, it is no object.
    """
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in found:
            if key in result:
                twice.append(key)
            result[key] = value
        return result

    text = await request.read()
    try:
        if "yaml" in request.headers.get("Content-Type", ""):
            found = yaml.safe_load(text)
        else:
            found = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error
    if not isinstance(found, dict):
        raise bad_request("the object provided is unrecognized: it is no object")
    return found, twice


async def answer(
    store: Store, place: Route, verb: str, request: web.BaseRequest
) -> web.StreamResponse:
    """Does what a request asks."""
    match verb:
        case "get":
            return _told(store.read(place.row.kind, place.namespace, place.name))
        case "list":
            return _told(_list(store, place, request.query))
        case "create" if place.subresource == "eviction":
            return _told(_evicted(store, place, (await body(request))[0]), 201)
        case "create" | "update":
            return await _written(store, place, verb, request)
        case "patch":
            return await _patched(store, place, request)
        case "delete":
            return _told(_deleted(store, place, await _options(request), request.query))
    return _told(_all_deleted(store, place, await _options(request), request.query))


def _told(obj: Object, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    response = web.json_response(obj, status=status)
    for warning in warnings or ():
        escaped = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response


def _strictness(query: Mapping[str, str]) -> str:
    given = query.get("fieldValidation", "")
    if given not in _VALIDATIONS:
        raise bad_request(f"invalid fieldValidation {given!r}")
    return given or "Warn"


def _dry(query: Mapping[str, str]) -> bool:
    given = query.get("dryRun", "")
    if given not in ("", "All"):
        raise bad_request(f"invalid dryRun {given!r}")
    return bool(given)


def _manager(request: web.BaseRequest) -> str:
    agent = request.headers.get("User-Agent", "unknown").split("/")[0]
    return request.query.get("fieldManager", "") or agent


async def _written(
    store: Store, place: Route, verb: str, request: web.BaseRequest
) -> web.StreamResponse:
    obj, twice = await body(request)
    row, query = place.row, request.query
    _same_kind(row, obj)
    meta = obj["metadata"] = dict(obj.get("metadata") or {})
    given = meta.get("namespace") or place.namespace
    if row.namespaced and given != place.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if row.namespaced:
        meta["namespace"] = place.namespace
    strictness = _strictness(query)
    obj, warnings = admission.decoded(row, obj, twice, strict=strictness == "Strict")
    settings: dict[str, Any] = {"dry_run": _dry(query), "manager": _manager(request)}
    if verb == "create":
        made = store.create(row.kind, obj, **settings)
    else:
        if obj["metadata"].get("name") != place.name:
            raise bad_request(
                f"the name of the object ({obj['metadata'].get('name', '')}) does not match the "
                f"name on the URL ({place.name})"
            )
        made = store.replace(row.kind, obj, subresource=place.subresource, **settings)
    shown = warnings if strictness == "Warn" else None
    return _told(made, 201 if verb == "create" else 200, shown)


def _same_kind(row: Kind, obj: Mapping[str, Any]) -> None:
    for key, own in (("kind", row.kind), ("apiVersion", row.api_version)):
        if obj.get(key, own) != own:
            raise bad_request(
                f"{row.kind} in version {obj.get('apiVersion')!r} cannot be handled as a "
                f"{row.kind}: its {key} is {obj[key]}, and {own} is served here"
            )


async def _patched(store: Store, place: Route, request: web.BaseRequest) -> web.StreamResponse:
    style = request.headers.get("Content-Type", "").partition(";")[0].strip()
    if style not in _STYLES:
        raise Refusal(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(_STYLES),
        )
    query = request.query
    settings: dict[str, Any] = {
        "dry_run": _dry(query),
        "strict": _strictness(query) == "Strict",
        "manager": _manager(request),
    }
    if style == _APPLY:
        obj, _ = await body(request)
        if not query.get("fieldManager"):
            raise bad_request("PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: "
                              "is required for apply patch")  # fmt: skip
        _same_kind(place.row, obj)
        made, born = applying.applied(
            store,
            place.row,
            {**obj, "metadata": {**(obj.get("metadata") or {}), **_place(place)}},
            place.subresource,
            force=query.get("force", "").lower() == "true",
            **settings,
        )
        return _told(made, 201 if born else 200)
    try:
        changes = json.loads(await request.read())
    except ValueError as error:
        raise bad_request(f"the patch is no JSON: {error}") from error
    made = store.patch(
        place.row.kind,
        place.namespace,
        place.name,
        changes,
        place.subresource,
        style=style,
        **settings,
    )
    return _told(made)


def _place(place: Route) -> dict[str, str]:
    return {
        "name": place.name,
        **({"namespace": place.namespace} if place.row.namespaced else {}),
    }


def _list(store: Store, place: Route, query: Mapping[str, str]) -> Object:
    row = place.row
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    limit, token = number(query, "limit"), query.get("continue", "")
    revision, after = _continued(store, token) if token else (store.revision, ("", ""))
    found = [
        obj
        for obj in store.each(row.kind, place.namespace, labels, fields)
        if not token or _position(obj) > after
    ]
    page = found[:limit] if limit else found
    meta: Object = {"resourceVersion": str(revision)}
    if len(page) < len(found):
        last = [revision, *_position(page[-1])]
        meta["continue"] = base64.urlsafe_b64encode(json.dumps(last).encode()).decode()
        if not labels and not fields:
            meta["remainingItemCount"] = len(found) - len(page)
    # The items of a list do not say their kind; the list does.
    items = [
        {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
        for obj in page
    ]
    return {
        "kind": f"{row.kind}List",
        "apiVersion": row.api_version,
        "metadata": meta,
        "items": items,
    }


def _position(obj: Mapping[str, Any]) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _continued(store: Store, token: str) -> tuple[int, tuple[str, str]]:
    try:
        revision, namespace, name = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, binascii.Error) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    if revision < store.oldest:
        raise Expired(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You "
            "can start a new list without the continue parameter.",
        )
    return revision, (namespace, name)


async def _options(request: web.BaseRequest) -> dict[str, Any]:
    """The DeleteOptions: of the body, and else of the query."""
    given = (await body(request))[0] if request.can_read_body else {}
    query = request.query
    return {
        "grace": given.get("gracePeriodSeconds", number(query, "gracePeriodSeconds")),
        "propagation": given.get("propagationPolicy") or query.get("propagationPolicy", ""),
        "orphan": given.get("orphanDependents"),
        "conditions": given.get("preconditions") or {},
        "dry_run": bool(given.get("dryRun")) or _dry(query),
    }


def _deleted(
    store: Store, place: Route, options: Mapping[str, Any], query: Mapping[str, str]
) -> Object:
    kind = place.row.kind
    propagation = options["propagation"]
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        raise bad_request(f"invalid propagationPolicy {propagation!r}")
    if not propagation:
        orphan = options["orphan"]
        stay = kind in _ORPHANED if orphan is None else orphan
        propagation = "Orphan" if stay else "Background"
    conditions = options["conditions"]
    obj = store.delete(
        kind,
        place.namespace,
        place.name,
        grace=options["grace"],
        propagation=propagation,
        uid=conditions.get("uid", ""),
        resource_version=conditions.get("resourceVersion", ""),
        dry_run=options["dry_run"],
    )
    if kind in _RETURNED or store.find(kind, place.namespace, place.name) is not None:
        return obj
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": place.name,
            **({"group": place.row.group} if place.row.group else {}),
            "kind": place.row.plural,
            "uid": obj["metadata"]["uid"],
        },
    }


def _all_deleted(
    store: Store, place: Route, options: Mapping[str, Any], query: Mapping[str, str]
) -> Object:
    selected = {key: query.get(key, "") for key in ("labelSelector", "fieldSelector")}
    listed = _list(store, place, selected)
    for obj in listed["items"]:
        namespace, name = _position(obj)
        _deleted(store, Route(place.row, namespace, name), options, query)
    return listed


def _evicted(store: Store, place: Route, eviction: Mapping[str, Any]) -> Object:
    """Deletes a pod, if the disruption budgets of its labels let it go."""
    pod = store.read("Pod", place.namespace, place.name)
    labels = pod["metadata"].get("labels") or {}
    for budget in store.each("PodDisruptionBudget", place.namespace):
        taken = selectors.matches((budget.get("spec") or {}).get("selector"), labels)
        if taken and not (budget.get("status") or {}).get("disruptionsAllowed"):
            raise Refusal(
                429,
                "TooManyRequests",
                "Cannot evict pod as it would violate the pod's disruption budget.",
                {
                    "causes": [
                        {
                            "reason": "DisruptionBudget",
                            "message": f"The disruption budget {budget['metadata']['name']} does "
                            "not allow it now",
                        }
                    ]
                },
            )
    options = eviction.get("deleteOptions") or {}
    store.delete("Pod", place.namespace, place.name, grace=options.get("gracePeriodSeconds"))
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def log_container(pod: Object, wanted: str) -> str:
    """The container whose log a request means.

    Raises:
        Refusal: 400, the pod has no such, or several and none is named.
    """
    name, spec = pod["metadata"]["name"], pod["spec"]
    names = [one["name"] for one in spec["containers"]]
    initial = [one["name"] for one in spec.get("initContainers") or ()]
    if not wanted:
        if len(names) > 1:
            raise bad_request(
                f"a container name must be specified for pod {name}, choose one of: "
                f"[{' '.join(names)}]"
                + (f" or one of the init containers: [{' '.join(initial)}]" if initial else "")
            )
        return names[0]
    if wanted not in (*names, *initial):
        raise bad_request(f"container {wanted} is not valid for pod {name}")
    return wanted


def log_is_there(pod: Object, container: str, *, previous: bool) -> None:
    """Refuses the log of a container that has not begun, or never began before.

    Raises:
        Refusal: 400.
    """
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    every = (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ()))
    own = next((one for one in every if one["name"] == container), {})
    if previous and not (own.get("lastState") or {}).get("terminated"):
        raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
    state = own.get("state") or {}
    begun = "running" in state or "terminated" in state or own.get("lastState")
    if pod["spec"].get("nodeName") and not begun:
        reason = (state.get("waiting") or {}).get("reason", "ContainerCreating")
        told = (
            "trying and failing to pull image"
            if reason in ("ErrImagePull", "ImagePullBackOff")
            else f"waiting to start: {reason}"
        )
        raise bad_request(f'container "{container}" in pod "{name}" is {told}')
