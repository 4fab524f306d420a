"""Diagnoses of runs' pods: a stable category, a sentence and a remedy.

``pending.py`` makes them of pods that have not started, ``termination.py`` of those that ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.kubernetes import objects
from infra.kubernetes.objects import Object

IMAGE_PULL = "ImagePull"
UNSCHEDULABLE = "Unschedulable"
OOM_KILLED = "OOMKilled"
EVICTED = "Evicted"
NODE_LOST = "NodeLost"
SCRIPT_FAILED = "ScriptFailed"
TIMEOUT = "Timeout"
CANCELLED = "Cancelled"
CONFIG_INVALID = "ConfigInvalid"
START_FAILED = "StartFailed"
NODE_NEVER_JOINED = "NodeNeverJoined"
GONE = "Gone"

HINTS: Mapping[str, str] = {
    IMAGE_PULL: "Check the image's name, and that the cluster's image_pull_secrets may pull it.",
    UNSCHEDULABLE: "Ask for less, or add nodes that have it.",
    OOM_KILLED: "Take an instance type with more memory, or let the script use less.",
    EVICTED: "Retry it; it resumes from its newest checkpoint, if any. Ask for more storage if it "
    "used more than it had asked for.",
    NODE_LOST: "Retry it; it resumes from its newest checkpoint, if any.",
    SCRIPT_FAILED: "See the last lines of its log.",
    TIMEOUT: "Give it more time, and retry it; it resumes from its newest checkpoint, if any.",
    CANCELLED: "Retry it, if it was not meant to stop.",
    CONFIG_INVALID: "Make what is missing in the cluster's namespace, or correct its name.",
    START_FAILED: "See the last lines of its container; the image must hold Modelyard.",
    NODE_NEVER_JOINED: "Retry it when the cluster has room for all its nodes, or ask for fewer.",
    GONE: "Retry it; it resumes from its newest checkpoint, if any.",
}


@dataclass(frozen=True)
class Diagnosis:
    """Why a run waits, or why it ended.

    Attributes:
        category: A stable word; empty for a wait of no known category.
        message: The cause, in a sentence.
        hint: How to fix it; may be empty.
        container: The container that it is about, if any.
        pod: The pod that it is about, if any.
        at: When it happened, if known.
        slow: Whether it is a healthy wait that may take long: an image's pull.
        queued: Whether it waits for resources that others occupy: a node's resources, or a quota.
        lasting: Whether the same would happen to another attempt for sure.
    """

    category: str
    message: str
    hint: str = ""
    container: str = ""
    pod: str = ""
    at: datetime | None = None
    slow: bool = False
    queued: bool = False
    lasting: bool = False

    def __str__(self) -> str:
        said = f"{self.category}: {self.message}" if self.category else self.message
        return f"{said} {self.hint}".strip()


def diagnose(category: str, message: str, **more: Any) -> Diagnosis:
    """Build a diagnosis with its category's hint."""
    return Diagnosis(category, _sentence(message), HINTS.get(category, ""), **more)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?" else f"{text}."


def events_of(thing: Object, events: Iterable[Object]) -> list[Object]:
    """Select an object's events, the oldest first."""
    uid, name = objects.metadata_of(thing).get("uid"), objects.name_of(thing)
    found = [
        event
        for event in events
        if (events_of := event.get("involvedObject") or {}).get("name") == name
        and events_of.get("uid") in {uid, None, ""}
    ]
    return sorted(found, key=lambda event: str(time_of_event(event) or ""))


def time_of_event(event: Object) -> datetime | None:
    """Time at which an event was last observed."""
    series = event.get("series") or {}
    for text in (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("firstTimestamp"),
    ):
        if text:
            return objects.time_of(text)
    return None
