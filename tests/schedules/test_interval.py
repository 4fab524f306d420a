from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadInputError
from schedules.instants import FIRST, LAST
from schedules.interval import Interval, is_every, read_every, read_span, write_span


@given(
    seconds=st.integers(1, 50),
    base=st.integers(-300, 300),
    after=st.integers(-400, 400),
    length=st.integers(-5, 400),
)
def test_slots_are_the_base_and_whole_intervals(
    seconds: int, base: int, after: int, length: int
) -> None:
    until = after + length
    slots = [base + number * seconds for number in range(1, 1200)]
    interval = Interval(seconds, base)

    assert interval.next(after) == min(slot for slot in slots if slot > after)
    assert interval.latest(until) == max((slot for slot in slots if slot <= until), default=None)
    assert interval.count(after, until) == sum(after < slot <= until for slot in slots)


def test_the_first_and_the_last_second() -> None:
    interval = Interval(3600, FIRST)

    assert interval.next(-(10**15)) == FIRST + 3600
    assert interval.latest(FIRST + 3599) is None
    assert interval.next(LAST) is None
    assert interval.latest(10**15) == LAST - 3599
    assert interval.count(LAST, 10**15) == 0
    assert Interval(LAST, 0).next(LAST - 1) == LAST
    assert Interval(LAST + 1, 0).next(0) is None
    assert Interval(10, FIRST - 1000).latest(FIRST - 1) is None


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("90m", 5400, "1h30m"), ("1h30m", 5400, "1h30m"), ("2d", 172_800, "2d"), ("1s", 1, "1s"),
        ("1w", 604_800, "7d"), ("1d1h1m1s", 90_061, "1d1h1m1s"), ("86400s", 86_400, "1d"),
    ],
)  # fmt: skip
def test_intervals_with_units(text: str, seconds: int, written: str) -> None:
    assert read_span(text) == seconds
    assert write_span(seconds) == written


@given(st.integers(1, 10**10))
def test_an_interval_is_read_as_it_is_written(seconds: int) -> None:
    assert read_span(write_span(seconds)) == seconds


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("@every 1h30m", 5400),
        ("@every 90s", 90),
        (" @every  1m1s ", 61),
        ("@every 1.5h", 5400),
        ("@every .5m", 30),
        ("@every 2.s", 2),
        ("@every +3s", 3),
        ("@every 1000ms", 1),
        ("@every 1s500ms500000us", 2),
        ("@every 1500000000ns500ms", 2),
        ("@every 1m1h", 3660),
    ],
)
def test_durations_as_go_writes_them(expression: str, seconds: int) -> None:
    assert is_every(expression)
    assert read_every(expression) == seconds


@pytest.mark.parametrize(
    "duration",
    ["", "1", "0", "0s", "500ms", "1.5s", "-1h", "1d", "1 h", "h", ".s", "1h30", "1H", "9" * 200],
)
def test_a_duration_that_is_none_is_refused(duration: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read_every(f"@every {duration}")

    assert caught.value.code == "EveryInvalid"
    assert "1h30m" in caught.value.hint


def test_what_is_no_interval() -> None:
    assert not is_every("@daily")
    assert not is_every("@everyday 5s")
    assert not is_every("")
