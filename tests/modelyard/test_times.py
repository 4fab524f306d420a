"""Times and durations, as people write and read them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from infra.errors import BadInputError
from modelyard import times

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def seoul(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("30s", timedelta(seconds=30)), ("90m", timedelta(minutes=90)), ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)), ("1w", timedelta(weeks=1)),
    ],
)  # fmt: skip
def test_a_duration_is_before_now(text: str, before: timedelta) -> None:
    assert times.read_since(text, NOW) == NOW - before


@pytest.mark.usefixtures("seoul")
def test_a_time_without_an_offset_is_local() -> None:
    assert times.read_since("2026-03-04T09:00:00Z") == datetime(2026, 3, 4, 9, tzinfo=UTC)
    assert times.read_since("2026-03-04") == datetime(2026, 3, 3, 15, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-2h", "soon", "999999w", "2026-13-01"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadInputError) as raised:
        times.read_since(text, NOW)

    assert raised.value.code == "TimeInvalid"
    assert "2h" in raised.value.hint


@pytest.mark.usefixtures("seoul")
def test_times_are_shown_in_the_local_zone() -> None:
    assert times.local("2026-01-02T03:04:05.678901+00:00") == "2026-01-02 12:04:05 KST"
    assert times.local("2026-01-02T20:04:05Z") == "2026-01-03 05:04:05 KST"
    assert times.localized("sent 2026-01-02T20:04:05Z") == "sent 2026-01-03 05:04:05 KST"
    assert times.local_from_milliseconds(1767323045678) == "2026-01-02 12:04:05 KST"


@pytest.mark.parametrize(
    "text", ["", "2026-01-02", "at 2026-01-02T03:04:05Z", "2026-99-02T03:04Z"]
)
def test_another_text_is_shown_as_it_is(text: str) -> None:
    assert times.local(text) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (1.25, "1.25 s"), (59, "59 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"), (200_000, "2 d 7 h"),
    ],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert times.duration(seconds) == text
