"""A cluster in memory: what the Job code asks of an API, and nothing that runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from infra.kubernetes.api_errors import ClusterError
from tests.infra.kubernetes.objects import ago


def silent() -> ClusterError:
    return ClusterError("The API server gave no answer.", code="ApiUnreachable", transient=True)


class FakeApi:
    """Objects by kind and name.

    Attributes:
        objects: What is there.
        deleted: What was asked to end, in its order: kind, name and grace.
        logs: Logs by pod and container.
        fails: What raises instead of answering, by method and kind such as ``create Service``.
        loses: Methods and kinds that do it, and lose their answer.
    """

    namespace = "ours"

    def __init__(self, *objects: Mapping[str, Any]) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.deleted: list[tuple[str, str, int | None]] = []
        self.logs: dict[tuple[str, str], str] = {}
        self.fails: dict[str, ClusterError] = {}
        self.loses: set[str] = set()
        self.made = 0
        self.asked: list[str] = []
        self.put(*objects)

    def put(self, *objects: Mapping[str, Any]) -> None:
        for one in objects:
            self.objects[one["kind"], one["metadata"]["name"]] = copy.deepcopy(dict(one))

    def _ask(self, method: str, kind: str) -> None:
        self.asked.append(f"{method} {kind}")
        if error := self.fails.get(f"{method} {kind}") or self.fails.get("*"):
            raise error

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self._ask("create", kind)
        if (kind, name) in self.objects:
            raise ClusterError(f"{name} exists.", code="Conflict", status=409)
        self.made += 1
        made = copy.deepcopy(dict(manifest))
        made["metadata"] |= {"uid": f"uid-{self.made}", "creationTimestamp": ago(0)}
        self.objects[kind, name] = made
        if f"create {kind}" in self.loses:  # and the request was sent again
            raise ClusterError(f"{name} exists.", code="Conflict", status=409)
        return made

    def read(self, kind: str, name: str) -> dict[str, Any] | None:
        self._ask("read", kind)
        return self.objects.get((kind, name))

    def list(self, kind: str, labels: Mapping[str, str] | str = "") -> list[dict[str, Any]]:
        self._ask("list", kind)
        assert not isinstance(labels, str) or labels == ""
        wanted = dict(labels or {})
        return [
            copy.deepcopy(one)
            for (its, _), one in self.objects.items()
            if its == kind and wanted.items() <= (one["metadata"].get("labels") or {}).items()
        ]

    def delete(
        self, kind: str, name: str, *, grace_seconds: int | None = None, uid: str = ""
    ) -> bool:
        self._ask("delete", kind)
        there = self.objects.get((kind, name))
        if there is None or (uid and there["metadata"]["uid"] != uid):
            return False
        self.deleted.append((kind, name, grace_seconds))
        if kind == "Pod" and grace_seconds != 0 and there["status"].get("phase") == "Running":
            there["metadata"]["deletionTimestamp"] = ago(-30)
        else:
            del self.objects[kind, name]
        return True

    def log(self, pod: str, container: str = "", *, lines: int | None = None) -> str | None:
        self._ask("log", pod)
        text = self.logs.get((pod, container))
        return text if text is None else "\n".join(text.splitlines()[-(lines or 0) :])
