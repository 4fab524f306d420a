"""What the API says of itself."""

from __future__ import annotations

from typing import Any

from tests.cluster.kinds import KINDS, Kind
from tests.cluster.routes import nowhere
from tests.cluster.schemas import VERSION

__all__ = ["found", "is_discovery", "nowhere", "version"]


def version() -> dict[str, str]:
    """/version."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-04-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    }


def is_discovery(path: str) -> bool:
    """Whether a path is answered by `found`."""
    return found(path) is not None


def found(path: str) -> dict[str, Any] | None:
    """What is said at a path; None of one that says nothing."""
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            groups = sorted({row.group for row in KINDS.values() if row.group})
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(group) for group in groups],
            }
        case ["api", version_]:
            return _resources("", version_)
        case ["apis", group]:
            known = any(row.group == group for row in KINDS.values())
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)} if known else None
        case ["apis", group, version_]:
            return _resources(group, version_)
    return None


def _group(group: str) -> dict[str, Any]:
    row = next(row for row in KINDS.values() if row.group == group)
    one = {"groupVersion": row.api_version, "version": row.version}
    return {"name": group, "versions": [one], "preferredVersion": one}


def _resources(group: str, version_: str) -> dict[str, Any] | None:
    rows = [row for row in KINDS.values() if (row.group, row.version) == (group, version_)]
    if not rows:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": rows[0].api_version,
        "resources": [one for row in rows for one in _resource(row)],
    }


def _resource(row: Kind) -> list[dict[str, Any]]:
    told = [
        {
            "name": row.plural,
            "singularName": row.singular,
            "namespaced": row.namespaced,
            "kind": row.kind,
            "verbs": list(row.verbs),
            "shortNames": list(row.short),
        }
    ]
    if row.status:
        told.append(
            {
                "name": f"{row.plural}/status",
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": row.kind,
                "verbs": ["get", "patch", "update"],
            }
        )
    return told
