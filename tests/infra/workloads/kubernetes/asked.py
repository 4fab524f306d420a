"""An API that answers what a test has put into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infra.kubernetes.api_errors import ClusterError


class Asked:
    """Objects by kind and name, and what was asked of them."""

    namespace = "training"

    def __init__(self, **objects: Mapping[str, Mapping[str, Any]]) -> None:
        self.objects = {kind: dict(named) for kind, named in objects.items()}
        self.forbidden: set[str] = set()
        self.reads: list[tuple[str, str]] = []
        self.logs: list[list[str] | ClusterError] = []
        self.since: list[str] = []

    def read(self, kind: str, name: str) -> Mapping[str, Any] | None:
        self.reads.append((kind, name))
        if kind in self.forbidden:
            raise ClusterError(f"may not get {kind}", code="Forbidden", status=403)
        return self.objects.get(kind, {}).get(name)

    def create(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        named = self.objects.setdefault(manifest["kind"], {})
        if manifest["metadata"]["name"] in named:
            raise ClusterError("it is there", code="Conflict", status=409)
        named[manifest["metadata"]["name"]] = manifest
        return manifest

    def delete(self, kind: str, name: str) -> bool:
        return self.objects.get(kind, {}).pop(name, None) is not None

    def follow_log(
        self, pod: str, container: str, *, since_time: str, timestamps: bool
    ) -> Iterator[str]:
        self.since.append(since_time)
        found = self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]
        if isinstance(found, ClusterError):
            raise found
        yield from found
