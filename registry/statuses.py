"""The reference's words for the state of a run, derived from Prefect's, never stored.

Prefect itself, whose import takes long, is not needed for that.
"""

from __future__ import annotations

from typing import Protocol

CREATE_REQUESTED = "CREATE REQUESTED"
CREATE_IN_PROGRESS = "CREATE IN PROGRESS"
CREATE_FAILED = "CREATE FAILED"
RUNNING = "RUNNING"
STOP_IN_PROGRESS = "STOP IN PROGRESS"
STOPPED = "STOPPED"
COMPLETE = "COMPLETE"
TIMED_OUT = "TIMED OUT"

# What a run of each flow is called when it failed at its own work.
_FAILED = {
    "train": "FAIL TRAIN",
    "tune": "FAIL HYPERPARAMETER TUNING",
    "pipeline-run": "FAIL PIPELINE RUN",
    "pipeline-artifacts-cleanup": "FAIL CLEANUP",
}
_FAILED_ELSEWHERE = "FAIL"

# Names that our flows give to Prefect's FAILED state.
CREATE_FAILED_NAME = "CreateFailed"
TIMED_OUT_NAME = "TimedOut"
_BY_NAME = {CREATE_FAILED_NAME: CREATE_FAILED, TIMED_OUT_NAME: TIMED_OUT}

_FAILURES = {"FAILED", "CRASHED"}
_BY_TYPE = {
    "SCHEDULED": CREATE_REQUESTED,  # Late, AwaitingRetry and Resuming too
    "PENDING": CREATE_IN_PROGRESS,
    "RUNNING": RUNNING,
    "PAUSED": RUNNING,
    "CANCELLING": STOP_IN_PROGRESS,
    "CANCELLED": STOPPED,
    "COMPLETED": COMPLETE,
}

# Names that Prefect gives by itself, which tell a person nothing beyond the word.
_PLAIN_NAMES = {
    "Completed", "Failed", "Cancelled", "Cancelling", "Running", "Pending", "Scheduled",
    "Submitting", "InfrastructurePending", "FailTrain", "FailHyperparameterTuning",
    "FailPipelineRun", "FailCleanup",
    CREATE_FAILED_NAME, TIMED_OUT_NAME,
}  # fmt: skip


class State(Protocol):
    """What is asked of a state of Prefect's."""

    @property
    def type(self) -> str:
        """One of Prefect's types, in capitals."""

    @property
    def name(self) -> str | None:
        """Its name, which flows may give."""


def word(flow: str, state: State | None) -> str:
    """The reference's word for ``state`` of a run of ``flow``."""
    if state is None:
        return CREATE_REQUESTED
    if state.type in _FAILURES:
        return _BY_NAME.get(state.name or "", _FAILED.get(flow, _FAILED_ELSEWHERE))
    return _BY_TYPE[state.type]


def is_failure(word: str) -> bool:
    """Whether a run with this word has failed."""
    return word.startswith("FAIL") or word in {TIMED_OUT, CREATE_FAILED}


def is_over(word: str) -> bool:
    """Whether a run with this word has ended."""
    return is_failure(word) or word in {STOPPED, COMPLETE}


def is_refused(state: State | None) -> bool:
    """Whether a run was refused before it began."""
    return bool(state and state.name == CREATE_FAILED_NAME)


def detail(state: State | None) -> str:
    """The reference's bracketed word, such as ``GoalReached``; empty where there is none."""
    name = (state.name if state else None) or ""
    return "" if name in _PLAIN_NAMES else name
