"""Objects as an API server tells them, for tests of what is made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from infra.kubernetes import names

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
RUN = "5f0c1f1e-0d6a-4b51-8b7d-0a4c2f6f7a11"
IMAGE = "registry.example/flows:1"


def ago(seconds: float) -> str:
    """A time so many seconds ago, as Kubernetes writes it."""
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def labels(run: str = RUN, attempt: int = 1, part: str = "run") -> dict[str, str]:
    return {
        **names.OURS,
        names.FLOW_RUN: run,
        names.ATTEMPT: str(attempt),
        names.POOL: "gpu",
        names.PART: part,
    }


def job(
    *,
    run: str = RUN,
    attempt: int = 1,
    nodes: int = 1,
    age: float = 60,
    condition: str = "",
    reason: str = "",
    message: str = "",
    since: float = 30,
    part: str = "run",
) -> dict[str, Any]:
    name = names.job_name(run, attempt) if part == "run" else f"component-of-{attempt}"
    conditions = [
        {
            "type": condition,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": ago(since),
        }
    ]
    return {
        "kind": "Job",
        "metadata": {
            "name": name,
            "uid": f"uid of {name}",
            "labels": labels(run, attempt, part),
            "creationTimestamp": ago(age),
        },
        "spec": {"completions": nodes, "parallelism": nodes},
        "status": {"conditions": conditions if condition else []},
    }


def pod(
    phase: str = "Running",
    *,
    run: str = RUN,
    attempt: int = 1,
    index: int = 0,
    node: str = "node-1",
    state: dict[str, Any] | None = None,
    init: dict[str, Any] | None = None,
    conditions: list[dict[str, Any]] | None = None,
    deleted: float | None = None,
    memory: str = "8Gi",
    part: str = "run",
    **status: Any,
) -> dict[str, Any]:
    """A pod; ``deleted`` is for how many seconds it should have been gone."""
    name = f"{names.job_name(run, attempt)}-{index}-abcde"
    metadata: dict[str, Any] = {
        "name": name,
        "uid": f"uid of {name}",
        "labels": labels(run, attempt, part),
        "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        "creationTimestamp": ago(60),
    }
    if deleted is not None:
        metadata["deletionTimestamp"] = ago(deleted)
    spec: dict[str, Any] = {
        "containers": [
            {"name": "run", "image": IMAGE, "resources": {"limits": {"memory": memory}}}
        ]
    }
    if not memory:
        spec["containers"][0]["resources"] = {}
    if node:
        spec["nodeName"] = node
    told: dict[str, Any] = {"phase": phase, "conditions": conditions or [], **status}
    if init is not None:
        told["initContainerStatuses"] = [{"name": "fetch", "image": IMAGE, "state": init}]
    if state is not None:
        told["containerStatuses"] = [{"name": "run", "image": IMAGE, "state": state}]
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": told}


def terminated(code: int, reason: str = "Error", message: str = "", since: float = 30) -> Any:
    over = {"exitCode": code, "reason": reason, "message": message, "finishedAt": ago(since)}
    return {"terminated": over}


def waiting(reason: str, message: str = "") -> Any:
    return {"waiting": {"reason": reason, "message": message}}


def disrupted(reason: str, message: str = "") -> list[dict[str, Any]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]


def unschedulable(message: str, reason: str = "Unschedulable") -> list[dict[str, Any]]:
    return [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]


def scheduled(since: float) -> list[dict[str, Any]]:
    """The condition of a pod that has had a node for so many seconds."""
    return [{"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(since)}]


def event(about: dict[str, Any], reason: str, message: str = "", since: float = 10) -> Any:
    return {
        "kind": "Event",
        "reason": reason,
        "message": message,
        "lastTimestamp": ago(since),
        "involvedObject": {
            "kind": about["kind"],
            "name": about["metadata"]["name"],
            "uid": about["metadata"]["uid"],
        },
    }
