"""The reference's words for run states, derived from Prefect's and never stored.

Prefect, which is slow to import, is not imported.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Protocol

from infra.errors import BadInputError
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
FAILED = {kind.name: kind.failure for kind in flow_kinds.ALL}
FLOW_OF_FAILURE = {failure: flow for flow, failure in FAILED.items()}
FAILED_ELSEWHERE = "FAIL"

# What each word means; a final one has IN PROGRESS while the run publishes and cleans up.
MEANINGS = {
    CREATE_REQUESTED: "It waits for its time or a worker; `waiting` says for what.",
    CREATE_IN_PROGRESS: "A worker has taken it, and its process or pod is starting.",
    RUNNING: "Its flow runs.",
    STOP_IN_PROGRESS: "It is being stopped: its script has the grace period to end.",
    STOPPED: "A user stopped it. It can be retried.",
    COMPLETE: "Its work is done.",
    **{
        failure: f"The work of a run of `{flow}` failed; `error_code` says why."
        for flow, failure in FAILED.items()
    },
    FAILED_ELSEWHERE: "A run of a flow that is not Modelyard's failed.",
    CREATE_FAILED: "It was refused, or its process could not be started; nothing ran.",
    TIMED_OUT: "It exceeded its `max_minutes`. It can be retried.",
}

FAILED_BY_DETAIL = {CREATE_FAILED_DETAIL: CREATE_FAILED, TIMED_OUT_DETAIL: TIMED_OUT}

# Types of Prefect's states in which a run has ended.
FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_FAILURES = {"FAILED", "CRASHED"}
BY_TYPE = {
    "SCHEDULED": CREATE_REQUESTED,  # Late, AwaitingRetry and Resuming too
    "PENDING": CREATE_IN_PROGRESS,
    "PAUSED": RUNNING,
    "CANCELLING": STOP_IN_PROGRESS,
    "CANCELLED": STOPPED,
    "COMPLETED": COMPLETE,
}
# Types in which it has not, each of which a database's index finds.
UNFINISHED = frozenset({*BY_TYPE, "RUNNING"} - FINAL)

# Prefect's own names of states, by type; the one that is a type's name stands for all of the type.
PREFECT_TYPES = {
    "Scheduled": "SCHEDULED", "Late": "SCHEDULED", "AwaitingRetry": "SCHEDULED",
    "AwaitingConcurrencySlot": "SCHEDULED", "Resuming": "SCHEDULED",
    "Pending": "PENDING", "Submitting": "PENDING", "InfrastructurePending": "PENDING",
    "Retrying": "RUNNING", "Paused": "PAUSED", "Suspended": "PAUSED",
    "Cancelling": "CANCELLING", "Cancelled": "CANCELLED", "Completed": "COMPLETED",
    "Failed": "FAILED", "TimedOut": "FAILED", "Crashed": "CRASHED",
}  # fmt: skip

# Details that add nothing to the word.
PLAIN = {
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
    """Return the reference's word for ``state`` of a run of ``flow``.

    Args:
        flow: The flow's name.
        state: The run's state; None of a new one.
        labels: The run's labels, which say whether its work has ended and it publishes.
        attempt: How many attempts have started: Prefect's ``run_count``.
    """
    if state is None:
        return CREATE_REQUESTED
    failed = FAILED.get(flow, FAILED_ELSEWHERE)
    if state.type in _FAILURES:
        return FAILED_BY_DETAIL.get(_own_detail(state), failed)
    if state.type == "RUNNING":
        ends = {_concluding(attempt, _DONE): COMPLETE, _concluding(attempt, _NOT_DONE): failed}
        end = ends.get(str(labels.get(CONCLUDING_LABEL)))
        return end + _IN_PROGRESS if end else RUNNING
    return BY_TYPE[state.type]


def words() -> list[str]:
    """Return every word that :func:`word` may return."""
    ends = [COMPLETE, *FAILED.values(), FAILED_ELSEWHERE]
    return [*MEANINGS, *(f"{end}{_IN_PROGRESS}" for end in ends)]


def read(text: str) -> str:
    """Return a word, or a name of Prefect's, as it is spelled; read in capitals or not.

    Raises:
        BadInputError: With the code ``StateUnknown``.
    """
    known = {name.casefold(): name for name in (*PREFECT_TYPES, *words())}
    if text.casefold() not in known:
        raise BadInputError(
            f"{text!r} is not a state of a run.",
            f"Give one of: {', '.join(MEANINGS)}; or of Prefect's: {', '.join(PREFECT_TYPES)}.",
            code="StateUnknown",
        )
    return known[text.casefold()]


def is_one_of(states: Collection[str], word: str, state: State | None) -> bool:
    """Whether a run is in one of these states; in any without one.

    Args:
        states: As :func:`read` returns.
        word: The run's word.
        state: Its state in Prefect.
    """
    return not states or word in states or any(_is_prefects(one, state) for one in states)


def _is_prefects(name: str, state: State | None) -> bool:
    if state is None or state.type != PREFECT_TYPES.get(name):
        return False
    names = names_of(name)
    return not names or state.name in names


def types_of(word: str) -> frozenset[str]:
    """Return the types of Prefect's states that a run with this word, or name, may be in."""
    if word in PREFECT_TYPES:
        return frozenset({PREFECT_TYPES[word]})
    if word in {*FAILED.values(), FAILED_ELSEWHERE, *FAILED_BY_DETAIL.values()}:
        return frozenset(_FAILURES)
    named = frozenset(kind for kind, one in BY_TYPE.items() if one == word)
    return named | {"RUNNING"} if word == RUNNING or not named else named


def concluding(attempt: int, *, failed: bool) -> dict[str, str]:
    """Return labels of a run whose work has ended, while it publishes and cleans up.

    Until it ends, or another attempt starts, its word is the final one with ``IN PROGRESS``.
    """
    return {CONCLUDING_LABEL: _concluding(attempt, _NOT_DONE if failed else _DONE)}


def _concluding(attempt: int, how: str) -> str:
    return f"{attempt} {how}"


def error_label(attempt: int, code: str) -> dict[str, str]:
    """Return the label of a run whose attempt failed with an error of this code."""
    return {ERROR_LABEL: f"{attempt} {code}"}


def error_code(labels: Mapping[str, object], attempt: int) -> str:
    """Return the code of the error that an attempt failed with; "" if its labels have none."""
    failed, _, code = str(labels.get(ERROR_LABEL, "")).partition(" ")
    return code if failed == str(attempt) else ""


def is_concluding(word: str) -> bool:
    """Whether the work of a run with this word has ended, while it publishes and cleans up."""
    return word.endswith(_IN_PROGRESS) and word not in BY_TYPE.values()


def names_of(word: str) -> tuple[str, ...]:
    """Return the names of Prefect's states that a run with this word has; none for any."""
    if word in PREFECT_TYPES and word.upper() != PREFECT_TYPES[word]:
        return (word,)
    return (TIMED_OUT_DETAIL,) if word == TIMED_OUT else ()


def is_failure(word: str) -> bool:
    """Whether a run with this word has failed."""
    if word.endswith(_IN_PROGRESS):
        return False
    return word.startswith("FAIL") or word in {TIMED_OUT, CREATE_FAILED}


def is_refused(state: State | None) -> bool:
    """Whether a run was refused before it started."""
    return bool(state and _own_detail(state) == CREATE_FAILED_DETAIL)


def is_active(word: str) -> bool:
    """Whether a run with this word has not ended."""
    return word in {CREATE_REQUESTED, RUNNING} or word.endswith(_IN_PROGRESS)


def is_final(state: State | None) -> bool:
    """Whether a run in ``state`` has ended."""
    return state is not None and state.type in FINAL


def detail(state: State | None) -> str:
    """Return the reference's bracketed word, such as ``GoalReached``; empty without one."""
    found = _own_detail(state) if state else ""
    return "" if found in PLAIN else found


def message(state: State | None) -> str:
    """Return the message of a state, without its detail."""
    return text_of(state.message) if state else ""


def _own_detail(state: State) -> str:
    return detail_of(state.name, state.message) or state.name or ""
