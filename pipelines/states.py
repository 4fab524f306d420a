"""State and result of a pipeline's task."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from infra.texts import make_storable
from pipelines.artifacts import Bundle


class TaskState(StrEnum):
    """State of a task.

    Attributes:
        WAITING: It waits for the tasks that it depends on.
        RUNNING: It runs.
        SUCCEEDED: It has ended, and its outputs are stored.
        CACHED: It took the outputs of an equal task that ran earlier.
        SKIPPED: Its condition is false.
        FAILED: Its component failed.
        OMITTED: A task that it depends on failed.
        CANCELLED: The run was stopped or failed before it ended.
    """

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    CACHED = "CACHED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    OMITTED = "OMITTED"
    CANCELLED = "CANCELLED"


UNDONE = frozenset({TaskState.WAITING, TaskState.RUNNING})
DONE = frozenset({TaskState.SUCCEEDED, TaskState.CACHED})
BROKEN = frozenset({TaskState.FAILED, TaskState.OMITTED, TaskState.CANCELLED})

# The SDK knows these three only. A branch that was not taken is not a failure.
_FINAL = {
    TaskState.SUCCEEDED: "SUCCEEDED",
    TaskState.CACHED: "SUCCEEDED",
    TaskState.SKIPPED: "SUCCEEDED",
    TaskState.FAILED: "FAILED",
    TaskState.OMITTED: "FAILED",
    TaskState.CANCELLED: "CANCELLED",
}


@dataclass(frozen=True)
class TaskResult:
    """Result of a task.

    Attributes:
        state: Its final state.
        outputs: Its outputs.
        reason: Why it failed or was omitted, for people. It may contain a component's last
            line, and is made storable.
    """

    state: TaskState
    outputs: Bundle = field(default_factory=Bundle)
    reason: str = ""

    def __post_init__(self) -> None:
        """Make the reason storable: an unstorable one would block writing other nodes."""
        object.__setattr__(self, "reason", make_storable(self.reason))

    @property
    def final_status(self) -> str:
        """The state as ``PipelineTaskFinalStatus`` of KFP's SDK documents it."""
        return _FINAL[self.state]
