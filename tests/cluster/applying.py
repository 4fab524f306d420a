"""Server-side apply."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.cluster import admission, ownership, schemas
from tests.cluster.kinds import Kind
from tests.cluster.ownership import Object, Path
from tests.cluster.refusals import Refusal

if TYPE_CHECKING:
    from tests.cluster.store import Store


def applied(
    store: Store,
    row: Kind,
    wanted: Mapping[str, Any],
    subresource: str = "",
    *,
    manager: str,
    force: bool = False,
    strict: bool = True,
    dry_run: bool = False,
) -> tuple[Object, bool]:
    """Makes an object have what a manager wants it to have, and whether it is new.

    What the manager wanted before and wants no more goes, unless another owns it too.

    Raises:
        Refusal: 409, another manager owns a field that this would change, and `force` is not set.
    """
    if (wanted.get("metadata") or {}).get("managedFields"):
        raise Refusal(400, "BadRequest", "metadata.managedFields must be nil")
    obj, _ = admission.decoded(row, wanted, [], strict=strict)
    meta = obj["metadata"]
    old = store.find(row.kind, meta.get("namespace"), meta["name"])
    mine = ownership.leaves(row, obj)
    if old is None:
        if subresource:
            store.read(row.kind, meta.get("namespace"), meta["name"])
        meta["managedFields"] = [ownership.entry(manager, "Apply", row, mine)]
        return store.create(row.kind, obj, dry_run=dry_run, strict=strict), True
    entries, gone = _entries(row, old, mine, manager, subresource, force=force)
    new = _merged(copy.deepcopy(old), obj, schemas.of(row.kind))
    for path in sorted(gone, key=len, reverse=True):
        _remove(new, path)
    _remove_empty(new, old, obj)
    new["metadata"]["managedFields"] = entries
    made = store.replace(row.kind, new, subresource=subresource, dry_run=dry_run, strict=strict)
    return made, False


def _entries(
    row: Kind, old: Object, mine: Mapping[Path, Any], manager: str, sub: str, *, force: bool
) -> tuple[list[Object], set[Path]]:
    """The managedFields after an apply, and the paths that it takes away."""
    live = ownership.leaves(row, old)
    changed = {path for path, value in mine.items() if path in live and live[path] != value}
    before: set[Path] = set()
    others: list[tuple[Object, set[Path]]] = []
    own: Object | None = None
    for one in old["metadata"].get("managedFields") or ():
        owned = set(ownership.paths(one["fieldsV1"]))
        if (one["manager"], one["operation"], one.get("subresource", "")) == (
            manager, "Apply", sub,
        ):  # fmt: skip
            before, own = owned, one
        else:
            others.append((one, owned))
    clashes = [(one, path) for one, owned in others for path in sorted(owned & changed)]
    if clashes and not force:
        raise _clash(clashes)
    entries = []
    for one, owned in others:
        if left := owned - changed:
            entries.append({**one, "fieldsV1": ownership.tree(left)})
    new = ownership.entry(manager, "Apply", row, mine, sub)
    if own is not None and own["fieldsV1"] == new["fieldsV1"]:
        new = own
    kept = set().union(*(owned for _, owned in others)) if others else set()
    return [*entries, new], before - set(mine) - kept


def _clash(clashes: list[tuple[Object, Path]]) -> Refusal:
    told = [
        (f'conflict with "{one["manager"]}" using {one["apiVersion"]}', _dotted(path))
        for one, path in clashes
    ]
    count = f"{len(told)} conflict{'' if len(told) == 1 else 's'}"
    said = ", ".join(f"{message}: {field}" for message, field in told)
    return Refusal(
        409,
        "Conflict",
        f"Apply failed with {count}: {said}",
        {
            "causes": [
                {"reason": "FieldManagerConflict", "message": message, "field": field}
                for message, field in told
            ]
        },
    )


def _dotted(path: Path) -> str:
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            keys = json.loads(rest)
            text += "[" + ",".join(f"{key}={json.dumps(keys[key])}" for key in keys) + "]"
        elif kind == "v":
            text += f"[={rest}]"
    return text


def _merged(live: Any, wanted: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        if schema.get("x-kubernetes-map-type") == "atomic":
            return copy.deepcopy(wanted)
        result = dict(live)
        for key, value in wanted.items():
            result[key] = _merged(live.get(key), value, schemas.field(schema, key))
        return result
    kind = schema.get("x-kubernetes-list-type")
    if isinstance(wanted, list) and isinstance(live, list) and kind == "map":
        items = schemas.resolved(schema.get("items", {}))
        result_list = list(live)
        places = {ownership.item_key(one, schema): i for i, one in enumerate(live)}
        for item in wanted:
            place = places.get(ownership.item_key(item, schema))
            if place is None:
                result_list.append(copy.deepcopy(item))
            else:
                result_list[place] = _merged(live[place], item, items)
        return result_list
    if isinstance(wanted, list) and isinstance(live, list) and kind == "set":
        return live + [item for item in wanted if item not in live]
    return copy.deepcopy(wanted)


def _remove(obj: Any, path: Path) -> None:
    """Takes away what is at a path, if it is there."""
    node, trail = obj, path[:-1] if path[-1] == "." else path
    for element in trail[:-1]:
        node = _below(node, element)
        if node is None:
            return
    kind, _, rest = trail[-1].partition(":")
    if kind == "f" and isinstance(node, dict):
        node.pop(rest, None)
    elif kind == "v" and isinstance(node, list) and json.loads(rest) in node:
        node.remove(json.loads(rest))
    elif kind == "k" and isinstance(node, list):
        found = _below(node, trail[-1])
        if found is not None:
            node.remove(found)


def _below(node: Any, element: str) -> Any:
    kind, _, rest = element.partition(":")
    if kind == "f":
        return node.get(rest) if isinstance(node, dict) else None
    if kind == "k" and isinstance(node, list):
        keys = json.loads(rest)
        defaults = {"protocol": "TCP"}
        for item in node:
            if all(item.get(key, defaults.get(key)) == keys[key] for key in keys):
                return item
    return None


def _remove_empty(new: Object, old: Object, wanted: Mapping[str, Any]) -> None:
    """Takes away maps that the apply has emptied."""
    for key in [key for key, value in new.items() if isinstance(value, dict)]:
        had, asked = old.get(key), wanted.get(key)
        asked = asked if isinstance(asked, Mapping) else {}
        if isinstance(had, dict) and had:
            _remove_empty(new[key], had, asked)
            if not new[key] and key not in wanted:
                del new[key]
