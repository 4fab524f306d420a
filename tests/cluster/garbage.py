"""What goes with what it belongs to: dependents of owners, the content of namespaces."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from tests.cluster.control_loop import ControlLoop
from tests.cluster.refusals import Missing
from tests.cluster.store import FOREGROUND, ORPHAN, Key, Store

Object = dict[str, Any]


class Garbage(ControlLoop):
    """The collector: a loop that looks whenever the state changes."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    async def _go_on(self) -> None:
        while True:
            seen = self._store.revision
            self.collect()
            await self._store.changed(seen)

    def collect(self) -> None:
        """One look at everything; what it deletes may leave more for the next."""
        places = self._store.uids()
        owned = [
            (key, obj) for key, obj in self._store.objects.items() if _owners(obj)
        ]  # a list, since the store changes below
        for key, obj in owned:
            with contextlib.suppress(Missing):
                self._dependent(key, obj, places)
        leaving = [
            (key, obj)
            for key, obj in self._store.objects.items()
            if "deletionTimestamp" in obj["metadata"]
        ]
        for key, obj in leaving:
            with contextlib.suppress(Missing):
                self._owner(key, obj)

    def _dependent(self, key: Key, obj: Object, places: Mapping[str, Key]) -> None:
        """Deletes what none owns any more, and what an owner takes with it."""
        known = [self._place(key, reference, places) for reference in _owners(obj)]
        owners = [self._store.objects[place] for place in known if place is not None]
        solid = [owner for owner in owners if not _has(owner, FOREGROUND)]
        if solid:
            return
        policy = "Foreground" if owners else "Background"
        if "deletionTimestamp" not in obj["metadata"]:
            self._store.delete(*key, propagation=policy, uid=obj["metadata"]["uid"])

    def _place(
        self, key: Key, reference: Mapping[str, Any], places: Mapping[str, Key]
    ) -> Key | None:
        """Where an owner is; one of another namespace is none."""
        place = places.get(reference["uid"])
        if place is None or place not in self._store.objects:
            return None
        return place if place[1] in ("", key[1]) else None

    def _owner(self, key: Key, obj: Object) -> None:
        if key[0] == "Namespace":
            self._empty(key, obj)
        uid = obj["metadata"]["uid"]
        dependents = [
            (place, one, reference)
            for place, one in self._store.objects.items()
            for reference in _owners(one)
            if reference["uid"] == uid
        ]
        if _has(obj, ORPHAN):
            for place, one, reference in dependents:
                left = [other for other in _owners(one) if other != reference]
                self._store.patch(*place, {"metadata": {"ownerReferences": left or None}})
            self._unmark(key, ORPHAN)
        blocked = any(reference.get("blockOwnerDeletion") for _, _, reference in dependents)
        if _has(obj, FOREGROUND) and not blocked:
            self._unmark(key, FOREGROUND)

    def _unmark(self, key: Key, finalizer: str) -> None:
        had = self._store.objects[key]["metadata"].get("finalizers", ())
        left = [one for one in had if one != finalizer]
        self._store.patch(*key, {"metadata": {"finalizers": left or None}})

    def _empty(self, key: Key, obj: Object) -> None:
        """Deletes what a namespace holds; when it is empty, the namespace."""
        held = [place for place in self._store.objects if place[1] == key[2]]
        for place in held:
            if "deletionTimestamp" not in self._store.objects[place]["metadata"]:
                self._store.delete(*place)
        if not any(place[1] == key[2] for place in self._store.objects):
            old = self._store.objects[key]
            self._store.keep(key, old, {**old, "metadata": dict(old["metadata"]), "spec": {}})


def _owners(obj: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = obj["metadata"].get("ownerReferences") or []
    return found


def _has(obj: Mapping[str, Any], finalizer: str) -> bool:
    meta = obj["metadata"]
    return "deletionTimestamp" in meta and finalizer in meta.get("finalizers", ())
