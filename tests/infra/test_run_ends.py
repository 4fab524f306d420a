from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from prefect.client.schemas.objects import State, StateType
from prefect.states import AwaitingRetry, Pending, Running, Scheduled

from infra import run_ends

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
REASON = "Its process ended with exit status 3."


def _ends(history: list[State], times: int) -> list[State]:
    """The states that a run gets whose process ends so often before the run begins."""
    found = []
    for _ in range(times):
        found.append(run_ends.retry_state([*history, Pending()], REASON, NOW))
        history = [*history, Pending(), found[-1]]
    return found


def test_it_is_queued_a_few_times_after_longer_and_longer_waits() -> None:
    found = _ends([Scheduled()], run_ends.STARTS - 1)

    assert [state.type for state in found] == [StateType.SCHEDULED] * (run_ends.STARTS - 1)
    waits = [state.state_details.scheduled_time - NOW for state in found]
    assert waits == [timedelta(seconds=4**n) for n in range(len(waits))]
    assert all(REASON in state.message for state in found)


def test_then_it_ends_with_the_reason() -> None:
    last = _ends([Scheduled()], run_ends.STARTS)[-1]

    assert (last.type, last.name) == (StateType.FAILED, "Failed")
    assert last.message.startswith("[CreateFailed] NotBegun: ")
    assert REASON in last.message


def test_a_retry_has_its_own_tries() -> None:
    spent = _ends([Scheduled()], run_ends.STARTS)
    history = [Scheduled(), *spent, AwaitingRetry()]

    assert _ends(history, 1)[0].type == StateType.SCHEDULED


def test_a_run_that_began_once_has_its_own_tries_too() -> None:
    history = [Scheduled(), *_ends([Scheduled()], run_ends.STARTS - 1), Running(), Scheduled()]

    assert _ends(history, 1)[0].type == StateType.SCHEDULED


def test_a_crash_says_how_to_go_on() -> None:
    run = uuid.uuid4()

    assert f"modelyard runs retry {run}" in run_ends.crashed_state(run, REASON).message
