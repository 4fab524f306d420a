"""How a task of a pipeline stands, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from infra.texts import storable
from pipelines.artifacts import Bundle


class TaskState(StrEnum):
    """How a task stands."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    CACHED = "CACHED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    OMITTED = "OMITTED"  # something that it needs has failed
    CANCELLED = "CANCELLED"


DONE = frozenset({TaskState.SUCCEEDED, TaskState.CACHED})
BROKEN = frozenset({TaskState.FAILED, TaskState.OMITTED, TaskState.CANCELLED})

# What a task that looks at another's end is told of it, in the words of KFP's backend.
_FINAL = {TaskState.SUCCEEDED: "COMPLETE", TaskState.CACHED: "COMPLETE"}


@dataclass(frozen=True)
class End:
    """How a task ended.

    Attributes:
        state: Its state.
        outputs: What it hands on.
        reason: Why it failed or was left out, for people; it may have a component's last line in
            it, and is made a text that can be stored.
    """

    state: TaskState
    outputs: Bundle = field(default_factory=Bundle)
    reason: str = ""

    def __post_init__(self) -> None:
        """Take care that one node's reason cannot hinder what is stored of the others."""
        object.__setattr__(self, "reason", storable(self.reason))

    @property
    def final_status(self) -> str:
        """The state as ``PipelineTaskFinalStatus`` has it."""
        return _FINAL.get(self.state, "FAILED" if self.state in BROKEN else str(self.state))
