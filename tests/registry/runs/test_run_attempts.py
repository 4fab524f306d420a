from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.kubernetes.attempts import AttemptRecord, AttemptRetry, AttemptStore
from registry import catalogue
from registry.runs import pending_reasons, run_attempts

STATE = str(uuid.uuid4())


@pytest.fixture(autouse=True)
def _catalogue(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


@pytest.fixture
def run() -> str:
    return str(uuid.uuid4())


def test_they_are_counted_by_run(run: str) -> None:
    other = str(uuid.uuid4())
    kept: AttemptStore = run_attempts

    assert [kept.begin(run, STATE), kept.begin(run, STATE), kept.begin(other, STATE)] == [1, 2, 1]
    assert kept.newest([run, other, str(uuid.uuid4())]) == {
        run: AttemptRecord(2, "", STATE),
        other: AttemptRecord(1, "", STATE),
    }
    assert kept.newest([]) == {}


def test_of_many_that_begin_at_once_each_is_one_of_its_own(run: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        begun = list(threads.map(lambda _: run_attempts.begin(run, STATE), range(24)))

    assert sorted(begun) == list(range(1, 25))


def test_what_an_attempt_waits_for_ends_with_it(run: str) -> None:
    run_attempts.begin(run, STATE)
    run_attempts.record_waiting(run, 1, "for 8 GPUs")
    assert run_attempts.newest([run]) == {run: AttemptRecord(1, "for 8 GPUs", STATE)}

    run_attempts.begin(run, STATE)
    run_attempts.record_waiting(run, 1, "too late")
    assert run_attempts.newest([run]) == {run: AttemptRecord(2, "", STATE)}


def test_who_tells_what_a_run_waits_for_does_not_undo_another_attempt(run: str) -> None:
    run_attempts.begin(run, STATE)

    def tell(number: int) -> None:
        run_attempts.record_waiting(run, 1, f"for {number}")

    with ThreadPoolExecutor(8) as threads:
        told = [threads.submit(tell, number) for number in range(40)]
        begun = [threads.submit(run_attempts.begin, run, STATE) for _ in range(20)]
        for one in (*told, *begun):
            one.result()

    assert run_attempts.newest([run])[run] == AttemptRecord(21, "", STATE)


class TestWaiting:
    @pytest.mark.parametrize("state", ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED"])
    def test_it_is_told_of_runs_that_have_not_ended(self, run: str, state: str) -> None:
        run_attempts.begin(run, STATE)
        assert pending_reasons.of({run: state}) == {}

        run_attempts.record_waiting(run, 1, "for 8 GPUs")
        assert pending_reasons.of({run: state, str(uuid.uuid4()): state}) == {run: "for 8 GPUs"}

    @pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"])
    def test_no_other_waits(self, run: str, state: str) -> None:
        run_attempts.begin(run, STATE)
        run_attempts.record_waiting(run, 1, "for 8 GPUs")

        assert pending_reasons.of({run: state}) == {}


def test_an_attempt_is_given_up_for_a_newer_one(run: str) -> None:
    assert run_attempts.begin(run, STATE) == 1
    assert not run_attempts.is_given_up(run, 1)

    run_attempts.begin(run, STATE)

    assert run_attempts.is_given_up(run, 1)
    assert not run_attempts.is_given_up(run, 2)


class TestClaim:
    def test_the_first_has_it_and_may_say_so_again(self, run: str) -> None:
        run_attempts.begin(run, STATE)

        assert run_attempts.claim(run, 1, "pod-a")
        assert run_attempts.claim(run, 1, "pod-a")
        assert not run_attempts.claim(run, 1, "pod-b")

    def test_what_is_older_than_the_newest_is_nobodys(self, run: str) -> None:
        run_attempts.begin(run, STATE)
        assert run_attempts.claim(run, 1, "pod-a")
        run_attempts.begin(run, STATE)

        assert not run_attempts.claim(run, 1, "pod-a")
        assert not run_attempts.claim(run, 1, "pod-c")
        assert run_attempts.claim(run, 2, "pod-b")

    def test_none_has_what_has_not_begun(self, run: str) -> None:
        assert not run_attempts.claim(run, 1, "pod-a")

    def test_runs_are_apart_and_a_removed_one_is_unknown(self, run: str) -> None:
        other = str(uuid.uuid4())
        for one in (run, other):
            run_attempts.begin(one, STATE)
            assert run_attempts.claim(one, 1, "pod-a")

        run_attempts.remove(run)

        assert run_attempts.begin(run, STATE) == 1
        assert run_attempts.claim(run, 1, "pod-c")
        assert not run_attempts.claim(other, 1, "pod-c")

    def test_of_many_at_once_one_has_it(self, run: str) -> None:
        run_attempts.begin(run, STATE)
        with ThreadPoolExecutor(8) as threads:
            got = list(threads.map(lambda n: run_attempts.claim(run, 1, f"pod-{n}"), range(8)))

        assert got.count(True) == 1


class TestRetries:
    """Attempts that were given up for another one by themselves."""

    def test_failures_are_counted_while_each_follows_from_the_last(self, run: str) -> None:
        run_attempts.begin(run, STATE)
        first = run_attempts.newest([run])[run].queued_at
        for number in (1, 2):
            retry = AttemptRetry(f"StartFailed: {number}.", number)
            run_attempts.retry(run, number, retry)
            run_attempts.retry(run, number, retry)  # once more is no other one
            run_attempts.begin(run, STATE)

        newest = run_attempts.newest([run])[run]
        assert (newest.number, newest.failures, newest.queued_at) == (3, 2, first)

        run_attempts.begin(run, STATE)  # somebody retries the run
        newest = run_attempts.newest([run])[run]
        assert (newest.number, newest.failures) == (4, 0)
        assert first is not None
        assert newest.queued_at is not None
        assert newest.queued_at > first

    def test_the_reasons_are_kept(self, run: str) -> None:
        for number, retry in (
            (1, AttemptRetry("StartFailed: once.", 1)),
            (2, AttemptRetry("A queue.", 0)),
        ):
            run_attempts.begin(run, STATE)
            run_attempts.retry(run, number, retry)
        run_attempts.begin(run, STATE)

        assert run_attempts.retried(run) == [
            run_attempts.RetriedAttempt(1, "StartFailed: once.", begun=False),
            run_attempts.RetriedAttempt(2, "A queue.", begun=True),
        ]
        assert run_attempts.retried(str(uuid.uuid4())) == []
