"""Who owns which field: managedFields, and the paths that they are made of.

A path is a tuple of the elements that the API writes: `f:name` of a field, `k:{...}` of an item
of a list by its keys, `v:...` of a value of a set, and `.` for an item or a map itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.cluster import schemas
from tests.cluster.kinds import Kind

Object = dict[str, Any]
Path = tuple[str, ...]
#: Keys of list items that the API fills in before it compares them.
_KEY_DEFAULTS = {"protocol": "TCP"}
#: What no manager owns.
_NOBODYS = frozenset(
    (
        ("f:apiVersion",),
        ("f:kind",),
        *(
            ("f:metadata", f"f:{field}")
            for field in (
                "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
                "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink",
                "generateName",
            )
        ),
    )
)  # fmt: skip


def leaves(row: Kind, obj: Mapping[str, Any]) -> dict[Path, Any]:
    """Every path of an object that can be owned, and what is there."""
    found = _leaves(obj, schemas.of(row.kind), ())
    return {
        path: value for path, value in found if path not in _NOBODYS and path[:2] not in _NOBODYS
    }


def _leaves(value: Any, schema: Mapping[str, Any], at: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping) and schema.get("x-kubernetes-map-type") != "atomic":
        if not value and at:
            yield at, {}
        for key, item in value.items():
            yield from _leaves(item, schemas.field(schema, key), (*at, f"f:{key}"))
        return
    kind = schema.get("x-kubernetes-list-type") if isinstance(value, list) else None
    if kind == "map":
        items = schemas.resolved(schema.get("items", {}))
        for item in value:
            place = (*at, item_key(item, schema))
            yield (*place, "."), True
            yield from _leaves(item, items, place)
    elif kind == "set":
        for item in value:
            yield (*at, f"v:{json.dumps(item)}"), item
    else:
        yield at, value


def item_key(item: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The element of a path that an item of a list is known by."""
    keys = {
        key: item.get(key, _KEY_DEFAULTS.get(key))
        for key in schema["x-kubernetes-list-map-keys"]
        if item.get(key, _KEY_DEFAULTS.get(key)) is not None
    }
    return "k:" + json.dumps(keys, sort_keys=True, separators=(",", ":"))


def tree(paths: Iterable[Path]) -> Object:
    """Paths as the fieldsV1 of an entry of managedFields."""
    found: Object = {}
    for path in sorted(paths):
        node = found
        for element in path:
            node = node.setdefault(element, {})
    return found


def paths(fields: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    """The paths of a fieldsV1."""
    for element, below in fields.items():
        if below:
            yield from paths(below, (*at, element))
        else:
            yield (*at, element)


def entry(manager: str, operation: str, row: Kind, owned: Iterable[Path], sub: str = "") -> Object:
    """An entry of managedFields."""
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": row.api_version,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "fieldsType": "FieldsV1",
        "fieldsV1": tree(owned),
        **({"subresource": sub} if sub else {}),
    }


def updated(row: Kind, old: Object, new: Object, manager: str, subresource: str) -> Object:
    """The new object; what it changes belongs to its manager, and to nobody else."""
    before, after = leaves(row, old) if old else {}, leaves(row, new)
    changed = {
        path for path, value in after.items() if path not in before or before[path] != value
    }
    lost = set(before) - set(after)
    had = (old.get("metadata") or {}).get("managedFields") or []
    if old and not changed and not lost:
        new["metadata"]["managedFields"] = had
        return new
    entries, mine = [], set(changed)
    for one in had:
        owned = set(paths(one["fieldsV1"])) - lost
        same = (one["manager"], one["operation"], one.get("subresource", ""))
        if same == (manager, "Update", subresource):
            mine |= owned
        elif left := owned - changed:
            entries.append({**one, "fieldsV1": tree(left)})
    if mine:
        entries.append(entry(manager, "Update", row, mine, subresource))
    new["metadata"]["managedFields"] = entries
    return new
