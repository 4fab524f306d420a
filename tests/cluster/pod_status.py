"""The status of a pod, made of what its containers do. Nothing here waits or writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.store import now

OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")


@dataclass
class ContainerState:
    """What a container does, as far as its status tells it."""

    name: str
    image: str
    kind: str
    """``init``, ``sidecar`` or ``main``."""
    state: dict[str, Any]
    last: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    container_id: str = ""
    image_id: str = ""

    @property
    def is_running(self) -> bool:
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """How it has ended; None while it has not."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    @property
    def is_done(self) -> bool:
        """Whether the next container may start, of those that start a pod."""
        return self.is_running if self.kind == "sidecar" else self.exit_code == 0

    def status(self) -> dict[str, Any]:
        told = {
            "name": self.name,
            "image": self.image,
            "imageID": self.image_id,
            "state": self.state,
            "lastState": self.last,
            "ready": self.is_done if self.kind != "main" else self.is_running,
            "restartCount": self.restarts,
            "started": self.is_running,
        }
        if self.container_id:
            told["containerID"] = self.container_id
        return told


def phase(restart_policy: str, containers: Sequence[ContainerState]) -> str:
    """What a pod is, by its containers, while nothing else has ended it."""
    starting = [one for one in containers if one.kind != "main"]
    mains = [one for one in containers if one.kind == "main"]
    if restart_policy == "Never" and any(one.exit_code for one in starting if one.kind == "init"):
        return "Failed"
    if not all(one.is_done or (one.kind == "sidecar" and one.exit_code is not None)
               for one in starting):  # fmt: skip
        return "Pending"
    if any("waiting" in one.state and not one.last for one in mains):
        return "Pending"
    if any(one.exit_code is None for one in mains) or restart_policy == "Always":
        return "Running"
    failed = any(one.exit_code for one in mains)
    if failed and restart_policy == "OnFailure":
        return "Running"
    return "Failed" if failed else "Succeeded"


def _unready(containers: Sequence[ContainerState], what: str) -> str:
    names = " ".join(one.name for one in containers)
    return f"containers with {what} status: [{names}]"


def conditions(
    old: Sequence[Mapping[str, Any]],
    phase_now: str,
    containers: Sequence[ContainerState],
    *,
    sandbox: bool,
    extra: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The conditions of a pod; those that others have written stay."""
    starting = [one for one in containers if one.kind != "main" and not one.is_done]
    unready = [one for one in containers if one.kind == "main" and not one.is_running]
    over = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase_now, "")
    ready = _condition("Ready", not unready and not over)
    initialized = _condition("Initialized", not starting or over == "PodCompleted")
    if over:
        ready["reason"] = over
        if over == "PodCompleted":
            initialized["reason"] = over
    elif unready:
        ready |= {"reason": "ContainersNotReady", "message": _unready(unready, "unready")}
    if starting and not over:
        told = _unready(starting, "incomplete")
        initialized |= {"reason": "ContainersNotInitialized", "message": told}
    made = [
        _condition("PodReadyToStartContainers", sandbox),
        initialized,
        ready,
        {**ready, "type": "ContainersReady"},
    ]
    return merged(old, [*made, *extra])


def _condition(kind: str, holds: bool) -> dict[str, Any]:
    return {"type": kind, "status": "True" if holds else "False", "lastProbeTime": None}


def merged(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Conditions with others in place of those of their type; the time is that of a change."""
    known = {one["type"]: one for one in old}
    fresh = {}
    for one in new:
        before = known.get(one["type"], {})
        since = before.get("lastTransitionTime")
        same = since and before.get("status") == one["status"]
        fresh[one["type"]] = {**one, "lastTransitionTime": since if same else now()}
    return [*(dict(one) for one in old if one["type"] not in fresh), *fresh.values()]


def quality(spec: Mapping[str, Any]) -> str:
    """The class of service of a pod."""
    parts = [*(spec.get("initContainers") or []), *spec["containers"]]
    asked = [one.get("resources") or {} for one in parts]
    if not any(one.get("limits") or one.get("requests") for one in asked):
        return "BestEffort"
    for one in asked:
        limits = one.get("limits") or {}
        if not {"cpu", "memory"} <= set(limits):
            return "Burstable"
        if any(limits.get(name) != text for name, text in (one.get("requests") or {}).items()):
            return "Burstable"
    return "Guaranteed"
