"""Kubeflow Pipelines' own cases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from registry.schedules.slots import Fate
from schedules import deciding, kfp_macros
from schedules.instants import instant_at, second_of
from schedules.policy import SchedulePolicy, plan_catchup
from schedules.schedule import Schedule
from schedules.trigger import Trigger
from tests.schedules import kfp
from tests.schedules.facts import VECTORS

# Where a slot is not a pure function of the trigger, or what is written is not what is meant.
_DIFFERENT = {
    "empty cron: never": "an empty expression is refused",
    "internal function, last job before start: start itself is the next": "a start is no slot",
    "interval 0 is treated as 1 s": "an interval of 0 is refused",
    "way behind, past end: end_time": "an end is a slot only if it is one",
}


def _of_kind(kind: str) -> list[Any]:
    return [
        pytest.param(case, id=f"{case['case']}-{place}")
        for place, case in enumerate(VECTORS["vectors"])
        if case["kind"] == kind
    ]


def _never(expected: int | str) -> int:
    return kfp.NEVER if expected == "never" else int(expected)


def _at(second: int | None) -> datetime | None:
    return None if second is None else instant_at(second)


def _trigger(case: dict[str, Any], **what: Any) -> Trigger:
    return Trigger(
        timezone=case.get("timezone", "UTC"),
        start=_at(case["start_time"]),
        end=_at(case["end_time"]),
        since=instant_at(case["default_start_time"] or 0),
        **what,
    )


def _ours(case: dict[str, Any], trigger: Trigger) -> int:
    """The next run of a schedule of our own, after the last one, with the matching catch-up."""
    last = instant_at(case["last_job_time"] or 0)
    found = trigger.next(last)
    if not case["catchup"]:
        plan = plan_catchup(
            trigger, SchedulePolicy(catchup=False, grace=0), last, instant_at(case["now"])
        )
        found = next(plan.runs(trigger), found)
    return kfp.NEVER if found is None else second_of(found)


@pytest.mark.parametrize("case", _of_kind("cron"))
def test_kfps_cron_cases(case: dict[str, Any]) -> None:
    assert kfp.cron_next(case, case["timezone"]) == _never(case["expected_next"])
    if case["case"] not in _DIFFERENT:
        ours = _ours(case, _trigger(case, cron=case["cron"]))
        assert ours == _never(case["expected_next"])


@pytest.mark.parametrize("case", _of_kind("periodic"))
def test_kfps_interval_cases(case: dict[str, Any]) -> None:
    assert kfp.interval_next(case) == _never(case["expected_next"])
    if case["case"] not in _DIFFERENT:
        ours = _ours(case, _trigger(case, interval_seconds=case["interval_second"]))
        assert ours == _never(case["expected_next"])


@pytest.mark.parametrize("case", _of_kind("recurring_run"))
def test_kfps_cases_of_whole_schedules(case: dict[str, Any]) -> None:
    made, given = case["creation_time"], case["trigger"]
    if given is None:  # a run that no schedule makes: it is due when it is made
        expected = made
    else:
        trigger = Trigger(
            cron=given.get("cron"),
            interval_seconds=given.get("interval_second"),
            timezone=case["timezone"],
            end=_at(given.get("end_time")),
            since=instant_at(made),
        )
        found = trigger.next(trigger.base)
        expected = kfp.NEVER if found is None else second_of(found)
    limit = SchedulePolicy(max_concurrency=case["max_concurrency"]).max_concurrency

    assert expected == _never(case["expected_next"])
    runs = expected <= case["now"] and case["active_runs"] < limit
    assert runs == case["expected_run_now"]


@pytest.mark.parametrize(
    "case", VECTORS["integration_run_counts"], ids=lambda case: next(iter(case["trigger"]))
)
def test_kfps_runs_of_a_schedule_that_is_over(case: dict[str, Any]) -> None:
    trigger = Trigger(
        cron=case["trigger"].get("cron"),
        interval_seconds=case["trigger"].get("interval_second"),
        start=instant_at(case["start_time"]),
        end=instant_at(case["end_time"]),
        since=instant_at(1_700_000_000),
    )

    def runs(catchup: bool) -> list[datetime]:
        plan = plan_catchup(trigger, SchedulePolicy(catchup=catchup), trigger.base, trigger.since)
        return list(plan.runs(trigger))

    assert len(runs(True)) == case["expected_total_runs"]
    assert runs(False) == runs(True)[-1:]


@pytest.mark.parametrize(
    "case", VECTORS["parameter_macros"], ids=lambda case: case["input"] or "empty"
)
def test_kfps_macros(case: dict[str, Any]) -> None:
    facts = kfp_macros.RunFacts(
        run_id=case["run_uuid"],
        now=instant_at(case["now"]),
        slot=_at(case["scheduled"]),
        index=case["index"],
    )

    assert kfp_macros.fill(case["input"], facts) == case["expected"]


@pytest.mark.parametrize("case", VECTORS["status_update"], ids=lambda case: case["case"])
def test_kfps_status_after_a_sync(case: dict[str, Any]) -> None:
    due, interval = case["scheduled_epoch"], case["interval_second"]
    trigger = Trigger(interval_seconds=interval, since=instant_at(due - interval))
    schedule = Schedule("s", trigger, SchedulePolicy(), due - interval)
    decision = deciding.decide_slots(schedule, due if case["submitted"] else due - 1, "me")
    runs = [slot.slot for slot in decision.slots if slot.fate == Fate.WAITING]

    expected = case["expected"]
    assert (runs[-1] if runs else None) == expected["last_triggered"]
    assert (len(runs) or None) == expected["last_index"]
    assert decision.next_slot == expected["next_triggered"]


def test_kfps_default_limit_is_ours() -> None:
    clamp = next(each for each in VECTORS["clamps"] if each["given"] is None)

    assert SchedulePolicy().max_concurrency == clamp["effective"]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("2006-01-02T15:04:05Z07:00", "2026-03-01T09:07:05Z"),
        ("Mon Jan _2 3:4:5 PM MST 06", "Sun Mar  1 9:7:5 AM UTC 26"),
        ("Monday, 2 January 2006", "Sunday, 1 March 2026"),
        ("002 __2 03pm", "060  60 09am"),
        ("20060102-1504", "20260301-0907"),
        ("-07:00 -0700 -07 Z0700", "+00:00 +0000 +00 Z"),
        ("05.000 05.999", "05.000 05"),
        ("Janet_2006", "Janet_2026"),
        ("no time", "no time"),
    ],
)
def test_gos_layouts(layout: str, expected: str) -> None:
    at = datetime.fromisoformat("2026-03-01T18:07:05+09:00")

    assert kfp_macros.layout(at, layout) == expected


def test_a_macro_of_kfp_that_is_not_known_stays() -> None:
    facts = kfp_macros.RunFacts(run_id="", now=instant_at(0))
    text = (
        "[[1, 2], [3]] [[Else]] [[RunUUID]] [[Index]] {{$.currentTime.strftime('%Q')}} {{ slot }}"
    )

    assert kfp_macros.fill(text, facts) == text
