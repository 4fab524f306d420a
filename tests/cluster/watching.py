"""Watches over HTTP: a line of JSON for each change."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.cluster import selectors
from tests.cluster.kinds import Kind
from tests.cluster.refusals import Refusal
from tests.cluster.routes import Route, number, truth
from tests.cluster.store import Change, Object, Store

_LONGEST = 1800
_INITIAL_END = {"k8s.io/initial-events-end": "true"}


class _Watch:
    """What one watch is to be told."""

    def __init__(self, store: Store, place: Route, request: web.BaseRequest) -> None:
        query = request.query
        self._store = store
        self._row = place.row
        self._namespace = place.namespace
        self._labels = query.get("labelSelector", "")
        self._fields = query.get("fieldSelector", "")
        if place.name:
            self._fields = f"metadata.name={place.name}"
        self._labelled = selectors.labels(self._labels)
        self._fielded = selectors.fields(self._fields, place.row.kind)
        self.bookmarked = truth(query, "allowWatchBookmarks")
        self.initial = truth(query, "sendInitialEvents")
        self.seconds = min(number(query, "timeoutSeconds") or _LONGEST, _LONGEST)
        version = query.get("resourceVersion", "")
        self.whole = self.initial or version in ("", "0")
        self.at = store.revision if self.whole else (number(query, "resourceVersion") or 0)

    def first(self) -> list[dict[str, Any]]:
        """What there is, where the watch begins with it."""
        if not self.whole:
            return []
        there = self._store.list(self._row.kind, self._namespace, self._labels, self._fields)
        events = [{"type": "ADDED", "object": obj} for obj in there]
        if self.initial:
            events.append(self.bookmark(_INITIAL_END))
        return events

    def more(self) -> list[dict[str, Any]]:
        """What has changed since.

        Raises:
            Refusal: 410, that is too long ago.
        """
        events = []
        for change in self._store.since(self.at):
            self.at = change.revision
            if (event := self._event(change)) is not None:
                events.append(event)
        return events

    def _event(self, change: Change) -> dict[str, Any] | None:
        """A change as a watch with selectors sees it: objects come and go as they match."""
        if change.kind != self._row.kind:
            return None
        if self._namespace and change.obj["metadata"].get("namespace") != self._namespace:
            return None
        matched = self._matches(change.obj)
        if change.type == "ADDED":
            return {"type": "ADDED", "object": change.obj} if matched else None
        had = change.before is not None and self._matches(change.before)
        type_ = {
            (True, True): change.type,
            (True, False): "DELETED",
            (False, True): "ADDED" if change.type == "MODIFIED" else None,
        }.get((had, matched))
        return {"type": type_, "object": change.obj} if type_ else None

    def _matches(self, obj: Object) -> bool:
        return self._labelled(obj["metadata"].get("labels") or {}) and self._fielded(obj)

    def bookmark(self, annotations: dict[str, str] | None = None) -> dict[str, Any]:
        """How far this watch has got."""
        meta: dict[str, Any] = {"resourceVersion": str(self.at), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        row: Kind = self._row
        obj = {"kind": row.kind, "apiVersion": row.api_version, "metadata": meta}
        return {"type": "BOOKMARK", "object": obj}


async def watched(
    store: Store, place: Route, request: web.BaseRequest, bookmarks: float
) -> web.StreamResponse:
    """Answers a watch until its time is over or its client has gone."""
    watch = _Watch(store, place, request)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)

    async def tell(events: list[dict[str, Any]]) -> None:
        if events:
            await response.write(b"".join(json.dumps(one).encode() + b"\n" for one in events))

    with contextlib.suppress(ConnectionResetError):
        try:
            await _go_on(store, watch, tell, bookmarks)
        except Refusal as refusal:
            await tell([{"type": "ERROR", "object": refusal.status()}])
        await response.write_eof()
    return response


async def _go_on(
    store: Store, watch: _Watch, tell: Callable[[list[dict[str, Any]]], Any], bookmarks: float
) -> None:
    loop = asyncio.get_running_loop()
    end, marked = loop.time() + watch.seconds, loop.time()
    await tell(watch.first())
    while loop.time() < end:
        await tell(watch.more())
        if watch.bookmarked and loop.time() - marked >= bookmarks:
            marked = loop.time()
            await tell([watch.bookmark()])
        left = min(end, marked + bookmarks if watch.bookmarked else end) - loop.time()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(store.changed(watch.at), max(left, 0.001))
