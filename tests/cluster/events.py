"""What the parts of the cluster tell about an object."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from tests.cluster.store import Missing, Refusal, Store, now


class Teller:
    """One part of the cluster; what it says again is counted, not repeated."""

    def __init__(self, store: Store, component: str, host: str = "") -> None:
        self._store = store
        self._component = component
        self._host = host
        self._said: dict[tuple[str, str, str], str] = {}

    def tell(
        self, obj: Mapping, reason: str, message: str, kind: str = "Normal", part: str = ""
    ) -> None:
        """Say something of an object, or of a part of it.

        Where its namespace ends, nothing is said.
        """
        meta = obj["metadata"]
        namespace = meta.get("namespace", "default")
        key = (meta["uid"], reason, message)
        if name := self._said.get(key):
            known = self._store.find("Event", namespace, name)
            if known is not None:
                changes = {"count": known["count"] + 1, "lastTimestamp": now()}
                self._store.patch("Event", namespace, name, changes)
                return
        try:
            made = self._store.create("Event", self._event(obj, part, reason, message, kind))
        except (Missing, Refusal):
            return
        self._said[key] = made["metadata"]["name"]

    def _event(
        self, obj: Mapping, part: str, reason: str, message: str, kind: str
    ) -> dict[str, object]:
        meta, moment = obj["metadata"], now()
        namespace = meta.get("namespace", "default")
        return {
            "metadata": {
                "name": f"{meta['name']}.{uuid.uuid4().hex[:16]}",
                "namespace": namespace,
            },
            "involvedObject": {
                "kind": obj["kind"],
                "apiVersion": obj["apiVersion"],
                "name": meta["name"],
                "namespace": meta.get("namespace", ""),
                "uid": meta["uid"],
                **({"fieldPath": part} if part else {}),
            },
            "reason": reason,
            "message": message[:1024],
            "type": kind,
            "source": {"component": self._component}
            | ({"host": self._host} if self._host else {}),
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
