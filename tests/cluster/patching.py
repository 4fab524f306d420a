"""Patches: JSON merge patch, strategic merge patch and JSON patch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jsonpatch

from tests.cluster import schemas
from tests.cluster.refusals import Refusal, bad_request

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON = "application/json-patch+json"


def patched(style: str, kind: str, obj: dict[str, Any], changes: Any) -> dict[str, Any]:
    """What an object is with changes of a style.

    Raises:
        Refusal: The changes are none of that style.
    """
    if style == JSON:
        return _json(obj, changes)
    if not isinstance(changes, Mapping):
        raise bad_request(f"a patch of type {style} is an object")
    if style == STRATEGIC:
        return _strategic(obj, changes, schemas.of(kind), "")
    return merged(obj, changes)


def merged(obj: Any, changes: Any) -> Any:
    """RFC 7386."""
    if not isinstance(changes, Mapping):
        return copy.deepcopy(changes)
    result = dict(obj) if isinstance(obj, Mapping) else {}
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _json(obj: dict[str, Any], changes: Any) -> dict[str, Any]:
    if not isinstance(changes, Sequence):
        raise bad_request("a JSON patch is a list of operations")
    try:
        result = jsonpatch.JsonPatch(changes).apply(obj)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        told = f"the server rejected our request due to an error in our request: {error}"
        raise Refusal(422, "Invalid", told) from error
    if not isinstance(result, dict):
        raise bad_request("the patch leaves no object")
    return result


def _strategic(obj: Any, changes: Any, schema: Mapping[str, Any], at: str) -> Any:
    """A merge that goes into lists by the key that the schema of each names."""
    if not isinstance(changes, Mapping):
        return copy.deepcopy(changes)
    directive = changes.get("$patch")
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in changes.items() if key != "$patch"}
    if directive is not None or any(str(key).startswith("$") for key in changes):
        raise bad_request(f"{at}: only the directives delete (of items) and replace")
    result = dict(obj) if isinstance(obj, Mapping) else {}
    for key, value in changes.items():
        within = schemas.field(schema, key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _lists(result.get(key) or [], value, within, f"{at}.{key}".lstrip("."))
        else:
            result[key] = _strategic(result.get(key), value, within, f"{at}.{key}".lstrip("."))
    return result


def _lists(had: list[Any], new: list[Any], schema: Mapping[str, Any], at: str) -> list[Any]:
    if schema.get("x-kubernetes-patch-strategy") != "merge":
        return copy.deepcopy(new)
    key = schema.get("x-kubernetes-patch-merge-key")
    if key is None:
        return had + [item for item in new if item not in had]
    items = schemas.resolved(schema.get("items", {}))
    result = list(had)
    for item in new:
        if not isinstance(item, Mapping) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        index = next((i for i, one in enumerate(result) if one.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if index is not None:
                del result[index]
        elif index is None:
            result.append(_strategic({}, item, items, f"{at}[]"))
        else:
            result[index] = _strategic(result[index], item, items, f"{at}[{index}]")
    return result
