from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import BadInputError
from schedules.trigger import LONGEST_INTERVAL, Trigger

_SINCE = "2026-03-01T00:00:30Z"
_NOON = {"cron": "0 0 12 * * *", "since": _SINCE}


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_slots_are_after_the_start_and_not_after_the_end() -> None:
    trigger = Trigger(
        interval_seconds=60,
        start="2026-03-01T10:00:00Z",
        end="2026-03-01T10:03:00Z",
        since=_SINCE,
    )
    slots = [_at(f"2026-03-01T10:0{minute}:00Z") for minute in (1, 2, 3)]

    assert trigger.base == _at("2026-03-01T10:00:00Z")
    assert list(trigger.between(_at("2020-01-01T00:00Z"), _at("2030-01-01T00:00Z"))) == slots
    assert trigger.count(_at("2020-01-01T00:00Z"), _at("2030-01-01T00:00Z")) == 3
    assert trigger.count(slots[0], slots[2]) == 2
    assert trigger.next(slots[2]) is None
    assert trigger.latest(trigger.base) is None
    assert trigger.latest(_at("2030-01-01T00:00Z")) == slots[2]


def test_without_a_start_slots_are_after_its_making() -> None:
    trigger = Trigger(interval_seconds=60, since=_SINCE)

    assert trigger.next(_at("2020-01-01T00:00Z")) == _at("2026-03-01T00:01:30Z")
    assert trigger.latest(_at(_SINCE)) is None


def test_a_start_in_the_past_has_its_slots() -> None:
    trigger = Trigger(cron="@daily", start="2026-02-26", since=_SINCE)

    assert trigger.next(trigger.base) == _at("2026-02-27T00:00:00Z")


def test_every_is_an_interval_from_the_base() -> None:
    trigger = Trigger(cron="@every 1h30m", since=_SINCE)

    assert trigger.next(trigger.base) == _at("2026-03-01T01:30:30Z")
    assert trigger.notice == ""


def test_slots_are_seconds_in_utc() -> None:
    trigger = Trigger(**_NOON | {"timezone": "Asia/Seoul"})
    slot = trigger.next(_at("2026-03-01T02:59:59.999999Z"))

    assert slot == _at("2026-03-01T03:00:00Z")
    assert slot.tzinfo is UTC
    assert trigger.next(_at("2026-03-01T03:00:00.000001Z")) == _at("2026-03-02T03:00:00Z")
    assert trigger.latest(_at("2026-03-01T03:00:00.000001Z")) == slot
    assert trigger.latest(_at("2026-03-01T02:59:59.999999Z")) is None


def test_a_time_without_a_zone_is_refused_where_a_slot_is_asked_for() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Trigger(**_NOON).next(datetime(2026, 1, 1))


def test_a_notice_of_five_fields() -> None:
    assert "minute" in Trigger(cron="0 12 * * *", since=_SINCE).notice


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("2026-03-02T09:00:00", "2026-03-02T14:00:00Z"),
        ("2026-03-02 09:00", "2026-03-02T14:00:00Z"),
        ("2026-03-02", "2026-03-02T05:00:00Z"),
        ("2026-03-02T09:00:00Z", "2026-03-02T09:00:00Z"),
        ("2026-03-02T09:00:00.9+09:00", "2026-03-02T00:00:00Z"),
        (datetime(2026, 3, 2, 9), "2026-03-02T14:00:00Z"),
        (datetime(2026, 3, 2, 9, tzinfo=timezone(timedelta(hours=9))), "2026-03-02T00:00:00Z"),
        ("2026-03-08T02:30:00", "2026-03-08T07:00:00Z"),  # no clock shows it
        ("2026-11-01T01:30:00", "2026-11-01T05:30:00Z"),  # they show it twice
        ("2026-11-01T02:00:00", "2026-11-01T07:00:00Z"),
    ],
    ids=str,
)
def test_how_a_time_is_read(given: Any, read: str) -> None:
    trigger = Trigger(**_NOON | {"timezone": "America/New_York", "start": given})

    assert trigger.start == _at(read)
    assert trigger.start.tzinfo is UTC


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ({"cron": None}, "TriggerMissing"),
        ({"interval_seconds": 60}, "TriggerTwice"),
        ({"cron": "0 0 30 2 *"}, "CronNeverFires"),
        ({"cron": "@every 1"}, "EveryInvalid"),
        ({"cron": 5}, "CronInvalid"),
        ({"timezone": "Mars/Olympus"}, "TimezoneUnknown"),
        ({"timezone": 9}, "TimezoneUnknown"),
        ({"cron": None, "interval_seconds": 0}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": -5}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": "60"}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": "0m"}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": "1.5h"}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": "-1h"}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": "1h 30m"}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": "2y"}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": ""}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": "9" * 90 + "w"}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": "1m" * 99}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": 1.5}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": True}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": LONGEST_INTERVAL + 1}, "IntervalInvalid"),
        ({"cron": None, "interval_seconds": -(10**5000)}, "IntervalInvalid"),
        ({"start": "2026-03-03", "end": "2026-03-02"}, "EndBeforeStart"),
        ({"start": "2026-03-02", "end": "2026-03-02"}, "EndBeforeStart"),
        ({"start": "tomorrow"}, "TimeInvalid"),
        ({"start": ""}, "TimeInvalid"),
        ({"start": 1772323200}, "TimeInvalid"),
        ({"start": "20260302"}, "TimeInvalid"),
        ({"start": "2026-02-30"}, "TimeInvalid"),
        ({"start": "1969-12-31"}, "TimeInvalid"),
        ({"end": "9999-12-31T23:59:59-12:00"}, "TimeInvalid"),
        ({"end": "0001-01-01T00:00:00+14:00"}, "TimeInvalid"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_is_refused(what: dict[str, Any], code: str) -> None:
    with pytest.raises(BadInputError) as caught:
        Trigger(**_NOON | what)

    assert caught.value.code == code
    assert caught.value.hint


def test_a_trigger_without_a_slot_until_its_end_is_refused_when_it_is_written() -> None:
    trigger = Trigger(**_NOON | {"end": "2026-03-01T11:00:00Z"})

    with pytest.raises(BadInputError) as caught:
        trigger.check_fires()

    assert caught.value.code == "TriggerNeverFires"
    assert "2026-03-01T11:00:00Z" in caught.value.message
    Trigger(**_NOON | {"end": "2026-03-01T12:00:00Z"}).check_fires()
    Trigger(**_NOON).check_fires()


def test_a_time_just_before_a_change_east_of_greenwich() -> None:
    trigger = Trigger(**_NOON | {"timezone": "Europe/Berlin", "start": "2026-03-29T01:30"})

    assert trigger.start == _at("2026-03-29T00:30:00Z")


@pytest.mark.parametrize("what", [{"interval_seconds": 420}, {"cron": "@every 7m"}])
def test_an_interval_s_rhythm_is_counted_from_its_base(what: dict[str, Any]) -> None:
    start, end = "2026-03-01T10:00:10Z", "2026-03-01T11:00:00Z"
    trigger = Trigger(**what, start=start, end=end, since=_SINCE)
    rhythm = trigger.rhythm()

    assert (rhythm.start, rhythm.end, rhythm.is_interval) == (None, None, True)
    assert rhythm.next(_at("2020-01-01T00:00Z")) == _at("2026-03-01T10:07:10Z")
    assert rhythm.next(_at("2026-03-01T11:00:00Z")) == _at("2026-03-01T11:03:10Z")


def test_an_expression_s_rhythm_has_neither_start_nor_end() -> None:
    told = {"timezone": "Asia/Seoul", "start": "2026-03-02", "end": "2026-03-04"}
    rhythm = Trigger(**_NOON | told).rhythm()

    assert not rhythm.is_interval
    assert rhythm.next(_at("2020-01-01T00:00Z")) == _at("2020-01-01T03:00:00Z")
    assert rhythm.next(_at("2027-01-01T00:00Z")) == _at("2027-01-01T03:00:00Z")


def test_what_is_stored_is_read_again() -> None:
    trigger = Trigger(**_NOON | {"timezone": "Asia/Seoul", "start": "2026-03-02", "end": None})
    first = trigger.next(trigger.base)
    again = Trigger(**trigger.model_dump(mode="json"))

    assert again == trigger
    assert again.next(again.base) == first


@settings(max_examples=60, deadline=None)
@given(
    what=st.sampled_from(
        [{"cron": "0 */7 * * * *"}, {"cron": "@every 7m"}, {"interval_seconds": 600}]
    ),
    start=st.none() | st.integers(0, 10_000),
    length=st.none() | st.integers(1, 10_000),
    after=st.integers(-20_000, 40_000),
    span=st.integers(0, 20_000),
)
def test_bounds_hold_either_way(
    what: dict[str, Any], start: int | None, length: int | None, after: int, span: int
) -> None:
    def at(second: int) -> datetime:
        return _at("2026-03-01T00:00Z") + timedelta(seconds=second)

    trigger = Trigger(
        since=at(3000),
        start=None if start is None else at(start),
        end=None if length is None else at((start or 0) + length),
        **what,
    )
    forwards = list(trigger.between(at(after), at(after + span)))

    last = trigger.latest(at(after + span))
    assert forwards[-1:] == [slot for slot in (last,) if slot is not None and slot > at(after)]
    assert trigger.count(at(after), at(after + span)) == len(forwards)
    for slot in forwards:
        assert max(at(after), trigger.base) < slot <= at(after + span)
        assert trigger.end is None or slot <= trigger.end
