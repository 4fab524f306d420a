"""The reference's words for the state of a run, derived from Prefect's, never stored.

Prefect itself, whose import takes long, is not needed for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from infra.state_details import CREATE_FAILED as CREATE_FAILED_DETAIL
from infra.state_details import TIMED_OUT as TIMED_OUT_DETAIL
from infra.state_details import detail_of, text_of
from registry import flow_kinds

CREATE_REQUESTED = "CREATE REQUESTED"
CREATE_IN_PROGRESS = "CREATE IN PROGRESS"
CREATE_FAILED = "CREATE FAILED"
RUNNING = "RUNNING"
STOP_IN_PROGRESS = "STOP IN PROGRESS"
STOPPED = "STOPPED"
COMPLETE = "COMPLETE"
TIMED_OUT = "TIMED OUT"

# A label of a run whose own work has ended: its attempt, and whether the work was done.
CONCLUDING_LABEL = "modelyard.concluding"
# A label of a run that failed: its attempt, and the code of the error.
ERROR_LABEL = "modelyard.error"
_DONE, _NOT_DONE = "done", "failed"
_IN_PROGRESS = " IN PROGRESS"

# The word of a run that failed at its own work, by its flow's name.
_FAILED = {kind.name: kind.failure for kind in flow_kinds.ALL}
_FAILED_ELSEWHERE = "FAIL"

_FAILED_BY_DETAIL = {CREATE_FAILED_DETAIL: CREATE_FAILED, TIMED_OUT_DETAIL: TIMED_OUT}

# Types of Prefect's states in which a run has ended.
FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_FAILURES = {"FAILED", "CRASHED"}
_BY_TYPE = {
    "SCHEDULED": CREATE_REQUESTED,  # Late, AwaitingRetry and Resuming too
    "PENDING": CREATE_IN_PROGRESS,
    "PAUSED": RUNNING,
    "CANCELLING": STOP_IN_PROGRESS,
    "CANCELLED": STOPPED,
    "COMPLETED": COMPLETE,
}

# Details that tell a person nothing beyond the word.
_PLAIN = {
    "Completed", "Failed", "Cancelled", "Cancelling", "Running", "Pending", "Scheduled",
    "Submitting", "InfrastructurePending", CREATE_FAILED_DETAIL, TIMED_OUT_DETAIL,
    # State names of earlier versions.
    "FailTrain", "FailHyperparameterTuning", "FailPipelineRun", "FailCleanup",
}  # fmt: skip


class State(Protocol):
    """A state of Prefect's, as its client or its REST API has it."""

    @property
    def type(self) -> str:
        """One of Prefect's types, in capitals."""

    @property
    def name(self) -> str | None:
        """Its name."""

    @property
    def message(self) -> str | None:
        """Its message, which carries the detail."""


def word(
    flow: str,
    state: State | None,
    labels: Mapping[str, object] = MappingProxyType({}),
    attempt: int = 0,
) -> str:
    """The reference's word for ``state`` of a run of ``flow``.

    Args:
        flow: The flow's name.
        state: The run's state; None of one that was just made.
        labels: The run's labels, which tell whether it still works or clears away.
        attempt: Its number of attempts that have begun, Prefect's ``run_count``.
    """
    if state is None:
        return CREATE_REQUESTED
    failed = _FAILED.get(flow, _FAILED_ELSEWHERE)
    if state.type in _FAILURES:
        return _FAILED_BY_DETAIL.get(_own_detail(state), failed)
    if state.type == "RUNNING":
        ends = {_concluding(attempt, _DONE): COMPLETE, _concluding(attempt, _NOT_DONE): failed}
        end = ends.get(str(labels.get(CONCLUDING_LABEL)))
        return end + _IN_PROGRESS if end else RUNNING
    return _BY_TYPE[state.type]


def concluding(attempt: int, *, failed: bool) -> dict[str, str]:
    """Labels of a run whose own work has ended, while it publishes and clears away.

    Until it ends, or another attempt begins, its word is the end's with ``IN PROGRESS``.
    """
    return {CONCLUDING_LABEL: _concluding(attempt, _NOT_DONE if failed else _DONE)}


def _concluding(attempt: int, how: str) -> str:
    return f"{attempt} {how}"


def error_label(attempt: int, code: str) -> dict[str, str]:
    """Label of a run whose attempt failed with an error of this code."""
    return {ERROR_LABEL: f"{attempt} {code}"}


def error_code(labels: Mapping[str, object], attempt: int) -> str:
    """Code of the error that an attempt failed with; "" if its labels have none."""
    failed, _, code = str(labels.get(ERROR_LABEL, "")).partition(" ")
    return code if failed == str(attempt) else ""


def is_failure(word: str) -> bool:
    """Whether a run with this word has failed."""
    if word.endswith(_IN_PROGRESS):
        return False
    return word.startswith("FAIL") or word in {TIMED_OUT, CREATE_FAILED}


def is_over(word: str) -> bool:
    """Whether a run with this word has ended."""
    return is_failure(word) or word in {STOPPED, COMPLETE}


def is_refused(state: State | None) -> bool:
    """Whether a run was refused before it began."""
    return bool(state and _own_detail(state) == CREATE_FAILED_DETAIL)


def is_final(state: State | None) -> bool:
    """Whether a run in ``state`` has ended."""
    return state is not None and state.type in FINAL


def detail(state: State | None) -> str:
    """The reference's bracketed word, such as ``GoalReached``; empty where there is none."""
    found = _own_detail(state) if state else ""
    return "" if found in _PLAIN else found


def message(state: State | None) -> str:
    """The message of a state, as people read it."""
    return text_of(state.message) if state else ""


def _own_detail(state: State) -> str:
    return detail_of(state.name, state.message) or state.name or ""
