from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry import catalogue, run_attempts


@pytest.fixture(autouse=True)
def _catalogue(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


@pytest.fixture
def run() -> str:
    return str(uuid.uuid4())


def test_the_first_has_it_and_may_say_so_again(run: str) -> None:
    assert run_attempts.claim(run, 1, "pod-a")
    assert run_attempts.claim(run, 1, "pod-a")
    assert not run_attempts.claim(run, 1, "pod-b")


def test_what_is_older_than_the_newest_is_nobodys(run: str) -> None:
    assert run_attempts.claim(run, 1, "pod-a")
    assert run_attempts.claim(run, 2, "pod-b")

    assert not run_attempts.claim(run, 1, "pod-a")
    assert not run_attempts.claim(run, 1, "pod-c")
    assert run_attempts.claim(run, 2, "pod-b")


def test_runs_are_apart_and_a_removed_one_is_unknown(run: str) -> None:
    other = str(uuid.uuid4())
    assert run_attempts.claim(run, 1, "pod-a")
    assert run_attempts.claim(other, 1, "pod-b")

    run_attempts.remove(run)

    assert run_attempts.claim(run, 1, "pod-c")
    assert not run_attempts.claim(other, 1, "pod-c")


def test_of_many_at_once_one_has_it(run: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda n: run_attempts.claim(run, 1, f"pod-{n}"), range(8)))

    assert got.count(True) == 1
