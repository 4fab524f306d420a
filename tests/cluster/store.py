"""The state of the small cluster: its objects, and what happened to them.

Everything here is of one event loop. A method that is not a coroutine is one step: nobody sees a
half of it. What is given out is a copy, and so is what is kept.
"""

from __future__ import annotations

import asyncio
import copy
import random
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.cluster import admission, patching, selectors
from tests.cluster.kinds import KINDS, Kind
from tests.cluster.refusals import (
    Expired,
    Missing,
    Refusal,
    bad_request,
    conflict,
    exists,
    expired,
    forbidden,
    missing,
    modified,
)

__all__ = ["Change", "Expired", "Missing", "Refusal", "Store", "now"]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_LONGEST_GENERATED = 63
#: What a writer of an object has no say in.
_OURS = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "namespace",
    "name",
    "generateName",
    "selfLink",
)

Object = dict[str, Any]
Key = tuple[str, str, str]


def now(after: float = 0) -> str:
    """The time, as objects have it; `after` seconds from now."""
    moment = datetime.now(UTC) + timedelta(seconds=after)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Change:
    """One step of the state. Its objects are the store's own: read them, and no more."""

    revision: int
    type: str
    kind: str
    obj: Object
    before: Object | None = None


class Store:
    """The objects of a cluster.

    Args:
        remembers: So many changes are kept for watches that go on from an earlier one.
    """

    def __init__(self, *, remembers: int = 5_000) -> None:
        self.objects: dict[Key, Object] = {}
        self.revision = 1
        self.changes: deque[Change] = deque(maxlen=remembers)
        self._waiting: set[asyncio.Event] = set()
        for name in ("default", "kube-system", "kube-public"):
            self.create("Namespace", {"metadata": {"name": name}})

    def create(
        self,
        kind: str,
        obj: Mapping[str, Any],
        *,
        dry_run: bool = False,
        strict: bool = True,
        manager: str = "",
    ) -> Object:
        """Adds an object, to the namespace of its metadata ("default" without one).

        Args:
            kind: Of `kinds.KINDS`.
            obj: The object; its kind and apiVersion may be left out.
            dry_run: Nothing is kept.
            strict: An unknown field is refused; it is left out otherwise.
            manager: Who is said to own what it has in managedFields; nobody without one.

        Raises:
            Refusal: It exists, its namespace does not, or it is not allowed.
        """
        row = KINDS[kind]
        new = {"apiVersion": row.api_version, "kind": kind, **copy.deepcopy(dict(obj))}
        meta = new["metadata"] = dict(new.get("metadata") or {})
        if meta.get("resourceVersion"):
            raise Refusal(500, "", "resourceVersion should not be set on objects to be created")
        for given in ("uid", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
            meta.pop(given, None)
        if row.namespaced:
            meta["namespace"] = meta.get("namespace") or "default"
        else:
            meta.pop("namespace", None)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = _generated(meta["generateName"])
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if row.generation:
            meta["generation"] = 1
        if row.status and not row.born_with_status:
            new.pop("status", None)
        key = _key(row, meta.get("namespace", ""), meta.get("name", ""))
        if row.namespaced:
            self._open_namespace(row, key)
        new = admission.created(self, row, new, strict=strict)
        if key in self.objects:
            raise exists(row, key[2])
        new = admission.owned(row, {}, new, manager)
        if not dry_run:
            self._put("ADDED", key, new)
            admission.born(self, row, new)
        return copy.deepcopy(self.objects[key] if not dry_run else new)

    def _open_namespace(self, row: Kind, key: Key) -> None:
        namespace = self.objects.get(("Namespace", "", key[1]))
        if namespace is None:
            raise missing(KINDS["Namespace"], key[1])
        if "deletionTimestamp" in namespace["metadata"]:
            raise forbidden(
                row,
                key[2],
                f"unable to create new content in namespace {key[1]} because it is being "
                "terminated",
            )

    def read(self, kind: str, namespace: str | None, name: str) -> Object:
        """An object.

        Raises:
            Missing: There is none.
        """
        return copy.deepcopy(self._had(_key(KINDS[kind], namespace, name)))

    def find(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """An object, or None."""
        found = self.objects.get(_key(KINDS[kind], namespace, name))
        return None if found is None else copy.deepcopy(found)

    def list(
        self, kind: str, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """The objects of a kind, by namespace and name; of every namespace without one."""
        return [copy.deepcopy(obj) for obj in self.each(kind, namespace, labels, fields)]

    def each(
        self, kind: str, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> Iterator[Object]:
        """As `list`, of the store's own objects: read them, and no more."""
        labelled, fielded = selectors.labels(labels), selectors.fields(fields, kind)
        keys = sorted(
            key for key in self.objects if key[0] == kind and namespace in (None, "", key[1])
        )
        for key in keys:
            obj = self.objects[key]
            if labelled(obj["metadata"].get("labels") or {}) and fielded(obj):
                yield obj

    def replace(
        self,
        kind: str,
        obj: Mapping[str, Any],
        *,
        subresource: str = "",
        dry_run: bool = False,
        strict: bool = True,
        manager: str = "",
    ) -> Object:
        """Writes an object over the one of its name.

        A resourceVersion or a uid in it must be the one that there is. Status is left as it is,
        but by the subresource "status", which changes nothing else.

        Raises:
            Missing: There is none.
            Refusal: Another has changed it, or the change is not allowed.
        """
        meta = obj.get("metadata") or {}
        row = KINDS[kind]
        key = _key(row, meta.get("namespace"), meta.get("name", ""))
        return self._update(
            key,
            copy.deepcopy(dict(obj)),
            subresource,
            dry_run=dry_run,
            strict=strict,
            manager=manager,
        )

    def patch(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        changes: Any,
        subresource: str = "",
        *,
        style: str = patching.MERGE,
        dry_run: bool = False,
        strict: bool = True,
        manager: str = "",
    ) -> Object:
        """Changes an object; a JSON merge patch, unless `style` says another.

        Raises:
            Missing: There is none.
            Refusal: As `replace`, or the changes are none of their style.
        """
        key = _key(KINDS[kind], namespace, name)
        new = patching.patched(style, kind, copy.deepcopy(self._had(key)), changes)
        return self._update(key, new, subresource, dry_run=dry_run, strict=strict, manager=manager)

    def set_status(
        self, kind: str, namespace: str | None, name: str, status: Mapping[str, Any]
    ) -> Object:
        """Writes an object's status, whole."""
        key = _key(KINDS[kind], namespace, name)
        new = {**self._had(key), "status": dict(status)}
        return self._update(key, copy.deepcopy(new), "status")

    def _had(self, key: Key) -> Object:
        found = self.objects.get(key)
        if found is None:
            raise missing(KINDS[key[0]], key[2])
        return found

    def _update(
        self,
        key: Key,
        new: Object,
        subresource: str,
        *,
        dry_run: bool = False,
        strict: bool = True,
        manager: str = "",
    ) -> Object:
        old, row = self._had(key), KINDS[key[0]]
        new = self.prepared(row, old, new, subresource)
        new = admission.updated(self, row, old, new, subresource, strict=strict)
        new = admission.owned(row, old, new, manager, subresource)
        return self.keep(key, old, new, dry_run=dry_run)

    def prepared(self, row: Kind, old: Object, new: Object, subresource: str) -> Object:
        """The new object with what its writer has no say in."""
        name = old["metadata"]["name"]
        meta = dict(new.get("metadata") or {})
        version = meta.get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise modified(row, name)
        if meta.get("uid") and meta["uid"] != old["metadata"]["uid"]:
            raise conflict(
                row,
                name,
                f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
                f"{old['metadata']['uid']}",
            )
        if meta.get("name", name) != name:
            raise bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL "
                f"({name})"
            )
        if subresource:
            return {**old, subresource: new.get(subresource) or {}}
        kept = {field: old["metadata"][field] for field in _OURS if field in old["metadata"]}
        meta = {field: value for field, value in meta.items() if field not in _OURS} | kept
        meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        new = {**new, "apiVersion": row.api_version, "kind": row.kind, "metadata": meta}
        if row.status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        return new

    def keep(self, key: Key, old: Object, new: Object, *, dry_run: bool = False) -> Object:
        """Puts a changed object in its place, if it has changed; ends it if it may go now."""
        row = KINDS[key[0]]
        if row.generation and _spec(old) != _spec(new):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if new == old or dry_run:
            return copy.deepcopy(new)
        if _may_go(new):
            return copy.deepcopy(self._drop(key, new))
        self._put("MODIFIED", key, new)
        admission.settled(self, row, old, new)
        return copy.deepcopy(new)

    def delete(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        *,
        grace: int | None = None,
        propagation: str = "Background",
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Object:
        """Asks for an object's end, and returns it as it then is.

        A pod on a node gets its grace (its own without one given; 0 ends it at once), and goes
        when `remove` says so. What has finalizers goes when it has none.

        Raises:
            Missing: There is none.
            Refusal: 409, `uid` or `resource_version` are not its own.
        """
        row = KINDS[kind]
        key = _key(row, namespace, name)
        old = self._had(key)
        for told, wanted, own in (
            ("UID", uid, old["metadata"]["uid"]),
            ("ResourceVersion", resource_version, old["metadata"]["resourceVersion"]),
        ):
            if wanted and wanted != own:
                raise conflict(
                    row,
                    name,
                    f"Precondition failed: {told} in precondition: {wanted}, {told} in object "
                    f"meta: {own}",
                )
        new = copy.deepcopy(old)
        meta = new["metadata"]
        seconds = _grace(kind, old, grace)
        first = "deletionTimestamp" not in meta
        if first or seconds < (meta.get("deletionGracePeriodSeconds") or 0):
            meta["deletionTimestamp"] = now(seconds)
            meta["deletionGracePeriodSeconds"] = seconds
            if first and row.generation:
                meta["generation"] = meta.get("generation", 0) + 1
        if first:
            _mark(meta, propagation)
        if kind == "Namespace":
            new["status"] = {**new.get("status", {}), "phase": "Terminating"}
        return self.keep(key, old, new, dry_run=dry_run)

    def remove(self, kind: str, namespace: str | None, name: str) -> None:
        """What a kubelet says when a pod's containers are gone: its grace is over."""
        self.delete(kind, namespace, name, grace=0)

    def uids(self) -> dict[str, Key]:
        """Where the object of each uid is."""
        return {obj["metadata"]["uid"]: key for key, obj in self.objects.items()}

    def _put(self, type_: str, key: Key, obj: Object) -> Object:
        before = self.objects.get(key)
        self.objects[key] = obj
        self._tell(type_, key, obj, before)
        return obj

    def _drop(self, key: Key, obj: Object) -> Object:
        before = self.objects.pop(key)
        self._tell("DELETED", key, obj, before)
        admission.gone(self, KINDS[key[0]], obj)
        return obj

    def _tell(self, type_: str, key: Key, obj: Object, before: Object | None) -> None:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        self.changes.append(Change(self.revision, type_, key[0], obj, before))
        for waiting in self._waiting:
            waiting.set()

    @property
    def oldest(self) -> int:
        """The revision from which every change since is known."""
        return self.changes[0].revision - 1 if self.changes else self.revision

    async def changed(self, since: int) -> int:
        """Waits until the state is newer than a revision; returns its revision."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while self.revision <= since:
                event.clear()
                await event.wait()
        finally:
            self._waiting.discard(event)
        return self.revision

    def since(self, revision: int) -> list[Change]:
        """The changes after a revision.

        Raises:
            Expired: So far back nothing is known.
        """
        if revision < self.oldest:
            raise expired(revision, self.oldest)
        newer = []
        for change in reversed(self.changes):
            if change.revision <= revision:
                break
            newer.append(change)
        return newer[::-1]

    async def watch(
        self, kinds: Iterable[str], since: int | None = None
    ) -> AsyncIterator[tuple[str, str, Object]]:
        """(type, kind, object) of each change after a revision; ends only with its reader.

        Without a revision it first tells each object that there is, as ADDED.

        Raises:
            Expired: So far back nothing is known.
        """
        wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        at = self.revision if since is None else since
        if since is None:
            for first in [obj for kind in wanted for obj in self.list(kind)]:
                yield "ADDED", first["kind"], first
        while True:
            for change in self.since(at):
                at = change.revision
                if change.kind in wanted:
                    yield change.type, change.kind, copy.deepcopy(change.obj)
            await self.changed(at)


def _key(row: Kind, namespace: str | None, name: str) -> Key:
    return row.kind, ((namespace or "default") if row.namespaced else ""), name


def _generated(base: str) -> str:
    tail = "".join(random.choices(_LETTERS, k=5))
    return base[: _LONGEST_GENERATED - len(tail)] + tail


def _spec(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _grace(kind: str, obj: Object, asked: int | None) -> int:
    """Seconds until an object may be taken away by force; only a pod on a node has any."""
    if kind != "Pod" or not obj["spec"].get("nodeName"):
        return 0
    if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    own = obj["spec"].get("terminationGracePeriodSeconds", 30)
    return int(own) if asked is None else max(0, asked)


def _mark(meta: Object, propagation: str) -> None:
    wanted = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(propagation)
    if wanted is not None and wanted not in meta.get("finalizers", ()):
        meta["finalizers"] = [*meta.get("finalizers", ()), wanted]


def _may_go(obj: Object) -> bool:
    meta = obj["metadata"]
    return (
        "deletionTimestamp" in meta
        and not meta.get("finalizers")
        and not meta.get("deletionGracePeriodSeconds")
        and not (obj.get("spec") or {}).get("finalizers")
    )
