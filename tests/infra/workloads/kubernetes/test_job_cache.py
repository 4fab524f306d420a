"""When Jobs and pods are listed, with a watch and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from infra.workloads.kubernetes import job_cache
from infra.workloads.kubernetes.job_cache import JobCache
from tests.infra.kubernetes.fake_api import FakeApi

LABELS = {"of": "a run"}


class Clock:
    """The cache's clock, which stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Notifier:
    """Tells of changes when the test does."""

    last: Notifier

    def __init__(self, _: str, notify: Callable[[], None], *__: Any, **___: Any) -> None:
        self.notify, self.closed = notify, False
        Notifier.last = self

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(job_cache, "time", clock)
    monkeypatch.setattr(job_cache, "EventNotifier", Notifier)
    return clock


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def cache(api: FakeApi) -> JobCache:
    return JobCache(api, LABELS, 1.0)  # type: ignore[arg-type]


def lists(api: FakeApi) -> int:
    assert set(api.asked) <= {"list Job", "list Pod"}
    return api.asked.count("list Job")


def test_without_a_watch_they_are_listed_at_each_interval(
    api: FakeApi, cache: JobCache, clock: Clock
) -> None:
    for second in (0.0, 0.5, 1.5, 2.0, 3.0):
        clock.now = 100 + second
        cache.of("job")

    assert lists(api) == 3


def test_with_one_they_are_listed_when_they_have_changed(
    api: FakeApi, cache: JobCache, clock: Clock
) -> None:
    cache.watch()
    for second in range(10):
        clock.now = 100.0 + second
        cache.of("job")
    assert lists(api) == 1

    clock.now = 110.0
    Notifier.last.notify()
    clock.now = 111.0
    cache.of("job")
    cache.of("another")
    assert lists(api) == 2

    cache.of("job", after=112.0)  # the caller has changed something itself
    assert lists(api) == 3


def test_a_change_while_they_are_listed_is_not_missed(
    api: FakeApi, cache: JobCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.watch()
    listed = api.list

    def slow(*of: Any) -> list[dict[str, Any]]:
        clock.now += 1
        Notifier.last.notify()
        return listed(*of)

    monkeypatch.setattr(api, "list", slow)
    cache.of("job")
    monkeypatch.undo()
    cache.of("job")

    assert lists(api) == 2


def test_once_closed_it_watches_no_more(api: FakeApi, cache: JobCache, clock: Clock) -> None:
    cache.watch()
    cache.watch()
    cache.close()
    cache.close()
    assert Notifier.last.closed

    cache.of("job")
    clock.now += 2
    cache.of("job")
    assert lists(api) == 2
