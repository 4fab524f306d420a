from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import BadInputError
from schedules.policy import Catchup, Overlap, SchedulePolicy, SkipReason, SlotRange, plan_catchup
from schedules.trigger import Trigger

_MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
_HOURLY = Trigger(cron="@hourly", since=_MIDNIGHT)


def _hour(hour: float) -> datetime:
    return _MIDNIGHT + timedelta(hours=hour)


def _fates(
    trigger: Trigger, policy: SchedulePolicy, after: datetime, now: datetime
) -> dict[datetime, str]:
    """The fate of each slot, by going through them one by one."""
    slots = list(trigger.between(after, now))
    on_time = {
        slot for slot in slots if (now - slot).total_seconds() <= policy.grace + policy.jitter
    }
    fates = dict.fromkeys(on_time, "due")
    run = 0
    for slot in reversed(slots):
        if slot in on_time:
            continue
        window = policy.catchup_window
        if policy.catchup is Catchup.NONE:
            fates[slot] = "CatchupOff"
        elif window is not None and (now - slot).total_seconds() > window:
            fates[slot] = "OutsideWindow"
        elif policy.catchup is Catchup.LATEST and slot != slots[-1]:
            fates[slot] = "NotLatest"
        elif policy.max_catchup_runs is not None and run >= policy.max_catchup_runs:
            fates[slot] = "TooMany"
        else:
            fates[slot] = "late"
            run += 1
    return fates


@settings(max_examples=200, deadline=None)
@given(
    what=st.sampled_from([{"cron": "0 */7 * * * *"}, {"interval_seconds": 45}]),
    catchup=st.sampled_from(Catchup),
    window=st.none() | st.integers(1, 5000),
    most=st.none() | st.integers(1, 30),
    grace=st.integers(0, 200),
    jitter=st.integers(0, 100),
    decided=st.integers(-100, 5000),
    now=st.integers(0, 6000),
    parts=st.sampled_from([0, 1, 500_000, 999_999]),
)
def test_every_slot_has_the_fate_that_the_rule_gives_it(
    what: dict[str, Any], catchup: Catchup, window: int | None, most: int | None,
    grace: int, jitter: int, decided: int, now: int, parts: int,
) -> None:  # fmt: skip
    trigger = Trigger(since=_MIDNIGHT, **what)
    policy = SchedulePolicy(
        catchup=catchup, catchup_window=window, max_catchup_runs=most, grace=grace, jitter=jitter
    )
    after = _MIDNIGHT + timedelta(seconds=decided, microseconds=parts)
    until = _MIDNIGHT + timedelta(seconds=now, microseconds=parts)
    plan = plan_catchup(trigger, policy, after, until)

    fates: list[tuple[datetime, str]] = []
    for each in plan.skipped:
        slots = list(each.slots.slots(trigger))
        assert len(slots) == each.slots.count
        assert (slots[0], slots[-1]) == (each.slots.first, each.slots.last)
        fates += [(slot, str(each.reason)) for slot in slots]
    runs = list(plan.runs(trigger))
    late = plan.late.count if plan.late else 0
    fates += [(slot, "late" if place < late else "due") for place, slot in enumerate(runs)]
    assert fates == sorted(_fates(trigger, policy, after, until).items())


@pytest.mark.parametrize(
    ("policy", "runs", "reasons"),
    [
        ({"catchup": "none"}, [], {"CatchupOff": 12}),
        ({"catchup": "latest"}, [12], {"NotLatest": 11}),
        ({"catchup": False}, [12], {"NotLatest": 11}),
        ({"catchup": "all"}, list(range(1, 13)), {}),
        ({"catchup": True}, list(range(1, 13)), {}),
        ({"max_catchup_runs": 5}, [8, 9, 10, 11, 12], {"TooMany": 7}),
        ({"catchup_window": 3 * 3600}, [10, 11, 12], {"OutsideWindow": 9}),
        ({"catchup_window": 3 * 3600, "max_catchup_runs": 1}, [12],
         {"OutsideWindow": 9, "TooMany": 2}),
        ({"catchup": "latest", "catchup_window": 600}, [], {"OutsideWindow": 12}),
        ({"catchup": "none", "grace": 1800}, [12], {"CatchupOff": 11}),
        ({"catchup": "latest", "grace": 1800}, [12], {"NotLatest": 11}),
    ],
    ids=str,
)  # fmt: skip
def test_twelve_hours_down(
    policy: dict[str, Any], runs: list[int], reasons: dict[str, int]
) -> None:
    now = _hour(12.5)
    plan = plan_catchup(_HOURLY, SchedulePolicy(**policy), _HOURLY.base, now)

    assert list(plan.runs(_HOURLY)) == [_hour(hour) for hour in runs]
    assert {str(each.reason): each.slots.count for each in plan.skipped} == reasons
    again = plan_catchup(_HOURLY, SchedulePolicy(**policy), now, now + timedelta(seconds=1))
    assert (again.skipped, again.late, again.due) == ((), None, None)


def test_a_slot_is_on_time_up_to_the_grace() -> None:
    policy = SchedulePolicy(catchup="none", grace=60, jitter=5)
    edge = _hour(1) + timedelta(seconds=65)

    assert plan_catchup(_HOURLY, policy, _MIDNIGHT, edge).due == SlotRange(_hour(1), _hour(1), 1)
    plan = plan_catchup(_HOURLY, policy, _MIDNIGHT, edge + timedelta(microseconds=1))
    assert plan.due is None
    assert [each.reason for each in plan.skipped] == [SkipReason.CATCHUP_OFF]


def test_a_clock_that_is_set_back_decides_nothing_twice() -> None:
    plan = plan_catchup(_HOURLY, SchedulePolicy(), _hour(5), _hour(3))

    assert (plan.skipped, plan.late, plan.due) == ((), None, None)


def test_what_cannot_be_listed_is_decided() -> None:
    trigger = Trigger(cron="* * * * * *", timezone="Europe/Berlin", since="2016-01-01T00:00:00Z")
    now = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)
    asked = 0

    def counted(after: datetime, until: datetime) -> int:
        nonlocal asked
        asked += 1
        return Trigger.count(trigger, after, until)

    object.__setattr__(trigger, "count", counted)
    plan = plan_catchup(trigger, SchedulePolicy(max_catchup_runs=1000, grace=0), trigger.base, now)
    (skipped,) = plan.skipped
    seconds = int((now - trigger.base).total_seconds())

    assert skipped.reason is SkipReason.TOO_MANY
    assert skipped.slots.count == seconds - 1001
    assert asked < 50
    rest, newest = skipped.slots.cut(trigger, 3)
    assert rest is not None
    assert newest is not None
    assert list(newest.slots(trigger)) == [now - timedelta(seconds=n) for n in (1003, 1002, 1001)]
    assert rest == SlotRange(skipped.slots.first, now - timedelta(seconds=1004), seconds - 1004)


def test_cutting_all_or_nothing() -> None:
    slots = SlotRange(_hour(1), _hour(5), 5)

    assert slots.cut(_HOURLY, 0) == (slots, None)
    assert slots.cut(_HOURLY, 5) == (None, slots)
    assert slots.cut(_HOURLY, 9) == (None, slots)
    assert slots.cut(_HOURLY, 1) == (
        SlotRange(_hour(1), _hour(4), 4),
        SlotRange(_hour(5), _hour(5), 1),
    )


def test_the_delay_of_a_slot_is_its_own_and_stays() -> None:
    policy = SchedulePolicy(jitter=10)
    delays = [policy.delay("a", _hour(hour)) for hour in range(500)]

    assert delays == [policy.delay("a", _hour(hour)) for hour in range(500)]
    assert delays != [policy.delay("b", _hour(hour)) for hour in range(500)]
    assert timedelta(0) <= min(delays) < timedelta(seconds=1)
    assert timedelta(seconds=9) < max(delays) <= timedelta(seconds=10)
    assert len(set(delays)) > 400
    assert SchedulePolicy().delay("a", _MIDNIGHT) == timedelta(0)
    # It is part of what is promised across versions.
    assert policy.delay("a", _MIDNIGHT) == timedelta(milliseconds=7521)


def test_defaults() -> None:
    policy = SchedulePolicy(catchup=None, catchup_window=None)

    assert policy == SchedulePolicy()
    assert (policy.catchup, policy.overlap, policy.max_concurrency) == (
        Catchup.ALL, Overlap.QUEUE, 1,
    )  # fmt: skip
    assert SchedulePolicy(**policy.model_dump(mode="json")) == policy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("catchup_window", 0),
        ("max_catchup_runs", 0),
        ("max_concurrency", 0),
        ("max_concurrency", -1),
        ("max_concurrency", 1.5),
        ("max_concurrency", "2"),
        ("max_concurrency", True),
        ("max_concurrency", 2**31),
        ("jitter", -1),
        ("jitter", 86_401),
        ("grace", -1),
        ("grace", 86_401),
        ("pause_after_failures", 0),
    ],
)
def test_a_number_out_of_bounds_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadInputError) as caught:
        SchedulePolicy(**{name: value})

    assert caught.value.code == "PolicyNumberInvalid"
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"), [("catchup", "most"), ("catchup", 1), ("overlap", "kill"), ("overlap", [])]
)
def test_a_word_that_is_not_known_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadInputError) as caught:
        SchedulePolicy(**{name: value})

    assert caught.value.code == "PolicyWordInvalid"
    assert name in caught.value.message
