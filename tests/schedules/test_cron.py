from __future__ import annotations

import functools
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import BadInputError
from schedules.cron import Cron, read_cron
from schedules.instants import FIRST, LAST, instant_at, second_of
from tests.schedules import naive
from tests.soaking import SOAK, examples

_SIX = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))

# Zones, and where their clocks are changed in an odd way.
_ZONES = (
    "America/New_York", "Europe/Berlin", "Asia/Seoul", "Australia/Lord_Howe", "Pacific/Apia",
    "America/Sao_Paulo", "Africa/Casablanca", "UTC",
)  # fmt: skip


def _second(text: str) -> int:
    return second_of(datetime.fromisoformat(text))


def _forward(cron: Cron, after: int, until: int) -> list[int]:
    found = []
    slot = cron.next(after)
    while slot is not None and slot <= until:
        found.append(slot)
        slot = cron.next(slot)
    return found


def _backward(cron: Cron, after: int, until: int) -> list[int]:
    found = []
    slot = cron.latest(until)
    while slot is not None and slot > after:
        found.append(slot)
        slot = cron.latest(slot - 1)
    return found[::-1]


def _local(expression: str, zone: str, after: str, until: str) -> list[str]:
    """The slots after one local time and until another, as the clocks show them."""
    info = ZoneInfo(zone)
    begin, end = (
        second_of(datetime.fromisoformat(each).replace(tzinfo=info)) for each in (after, until)
    )
    cron = read_cron(expression, zone)
    slots = _forward(cron, begin, end)
    assert _backward(cron, begin, end) == slots
    assert cron.count(begin, end) == len(slots)
    return [
        f"{instant_at(slot).astimezone(info):%d %H:%M%z}".replace("00 ", "00") for slot in slots
    ]


def _utc(expression: str, after: str, number: int) -> list[str]:
    cron = read_cron(expression)
    slots: list[str] = []
    at = _second(f"{after}+00:00")
    for _ in range(number):
        found = cron.next(at)
        assert found is not None
        at = found
        slots.append(f"{instant_at(at):%Y-%m-%d %H:%M:%S}")
    return slots


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 * * * * *", ["2026-01-01 00:01:00", "2026-01-01 00:02:00"]),
        ("*/20 * * * * ?", ["2026-01-01 00:00:20", "2026-01-01 00:00:40"]),
        ("40/10 * * * * *", ["2026-01-01 00:00:40", "2026-01-01 00:00:50"]),
        ("?/30 ? ? ? ? ?", ["2026-01-01 00:00:30", "2026-01-01 00:01:00"]),
        ("5,10-12,58-59 59 23 * * *", [
            "2026-01-01 23:59:05", "2026-01-01 23:59:10", "2026-01-01 23:59:11",
            "2026-01-01 23:59:12", "2026-01-01 23:59:58", "2026-01-01 23:59:59",
            "2026-01-02 23:59:05",
        ]),
        ("0 0 0 1-9/4 FEB ?", [
            "2026-02-01 00:00:00", "2026-02-05 00:00:00", "2026-02-09 00:00:00",
            "2027-02-01 00:00:00",
        ]),
        ("0 0 9 ? jan-Mar Mon-FRI/4", ["2026-01-02 09:00:00", "2026-01-05 09:00:00"]),
        # A day of the month or of the week is enough, unless one of them has a star.
        ("0 0 0 13 * FRI", ["2026-01-02 00:00:00", "2026-01-09 00:00:00", "2026-01-13 00:00:00"]),
        ("0 0 0 */2 * FRI", ["2026-01-09 00:00:00", "2026-01-23 00:00:00"]),
        ("0 0 0 */2,4 * FRI", ["2026-01-09 00:00:00", "2026-01-23 00:00:00"]),
        ("0 0 0 13 * */5", ["2026-02-13 00:00:00", "2026-03-13 00:00:00"]),
        ("0 0 0 13 * ?", ["2026-01-13 00:00:00"]),
        ("0 0 0 1-31 * FRI", ["2026-01-02 00:00:00", "2026-01-03 00:00:00"]),
        ("0 0 0 29 2 *", ["2028-02-29 00:00:00", "2032-02-29 00:00:00"]),
        ("0 0 0 31 * *", ["2026-01-31 00:00:00", "2026-03-31 00:00:00", "2026-05-31 00:00:00"]),
        # Nine years and more lie between these.
        ("0 0 0 29 2 */7", ["2032-02-29 00:00:00", "2060-02-29 00:00:00"]),
        ("0 0 0 30 2 MON", ["2026-02-02 00:00:00"]),
        ("@yearly", ["2027-01-01 00:00:00"]),
        ("@annually", ["2027-01-01 00:00:00"]),
        ("@monthly", ["2026-02-01 00:00:00"]),
        ("@weekly", ["2026-01-04 00:00:00"]),
        ("@daily", ["2026-01-02 00:00:00"]),
        (" @midnight ", ["2026-01-02 00:00:00"]),
        ("@hourly", ["2026-01-01 01:00:00"]),
    ],
    ids=str,
)  # fmt: skip
def test_how_an_expression_is_read(expression: str, expected: list[str]) -> None:
    assert _utc(expression, "2026-01-01T00:00:00", len(expected)) == expected


def test_five_fields_are_ordinary_cron_and_it_is_said() -> None:
    cron = read_cron("30 9 * * MON-FRI")

    assert _utc("30 9 * * MON-FRI", "2026-01-01T00:00:00", 3) == [
        "2026-01-01 09:30:00", "2026-01-02 09:30:00", "2026-01-05 09:30:00",
    ]  # fmt: skip
    assert "minute, hour, day-of-month" in cron.notice
    assert "'0 30 9 * * MON-FRI'" in cron.notice
    assert read_cron("0 30 9 * * MON-FRI").notice == ""
    assert read_cron("@daily").notice == ""


@pytest.mark.parametrize(
    ("expression", "code", "said"),
    [
        ("", "CronEmpty", "six fields"),
        ("  \t ", "CronEmpty", "six fields"),
        ("0 0 0 1 1 * 2026", "CronFieldCount", "7 fields"),
        ("0 0 1 1", "CronFieldCount", "4 fields"),
        ("nonsense", "CronFieldCount", "1 field."),
        ("60 * * * * *", "CronValueOutOfRange", "The second field"),
        ("* 60 * * * *", "CronValueOutOfRange", "The minute field"),
        ("* * 24 * * *", "CronValueOutOfRange", "0 to 23"),
        ("* * * 0 * *", "CronValueOutOfRange", "1 to 31"),
        ("* * * 32 * *", "CronValueOutOfRange", "The day-of-month field"),
        ("* * * * 13 *", "CronValueOutOfRange", "1 to 12 or JAN to DEC"),
        ("* * * * 0 *", "CronValueOutOfRange", "The month field"),
        ("* * * * * 7", "CronValueOutOfRange", "0 is Sunday"),
        ("* * * * 7", "CronValueOutOfRange", "The day-of-week field"),
        ("0-60 * * * * *", "CronValueOutOfRange", "'0-60'"),
        ("60/5 * * * * *", "CronValueOutOfRange", "'60/5'"),
        ("999999999999 * * * * *", "CronFieldInvalid", "is not known"),
        ("* * * L * *", "CronExtension", "L, W, #, R, H"),
        ("* * * L-3 * *", "CronExtension", "day-of-month"),
        ("* * * 15W * *", "CronExtension", "'15W'"),
        ("* * * LW * *", "CronExtension", "'LW'"),
        ("* * * * * 5L", "CronExtension", "day-of-week"),
        ("* * * * * FRIL", "CronExtension", "day-of-week"),
        ("* * * * * FRI#2", "CronExtension", "'FRI#2'"),
        ("* * * * * 5#L", "CronExtension", "'5#L'"),
        ("R * * * * *", "CronExtension", "'R'"),
        ("H/5 * * * * *", "CronExtension", "'H/5'"),
        ("h(0-30) * * * * *", "CronExtension", "second"),
        ("* 1,R * * * *", "CronExtension", "minute"),
        ("50-10 * * * * *", "CronRangeBackwards", "'50-10'"),
        ("* * * * NOV-FEB *", "CronRangeBackwards", "month"),
        ("* * * * * SAT-SUN", "CronRangeBackwards", "'SAT-SUN'"),
        ("1,,2 * * * * *", "CronFieldEmpty", "empty element"),
        (", * * * * *", "CronFieldEmpty", "second"),
        ("* 5, * * * *", "CronFieldEmpty", "minute"),
        ("*/0 * * * * *", "CronStepZero", "'*/0'"),
        ("* 5-9/0 * * * *", "CronStepZero", "minute"),
        ("*/ * * * * *", "CronFieldInvalid", "step"),
        ("*/x * * * * *", "CronFieldInvalid", "step"),
        ("*/5/5 * * * * *", "CronFieldInvalid", "step"),
        ("*-5 * * * * *", "CronFieldInvalid", "'*-5'"),
        ("1-2-3 * * * * *", "CronFieldInvalid", "'1-2-3'"),
        ("-5 * * * * *", "CronFieldInvalid", "'-5'"),
        ("+5 * * * * *", "CronFieldInvalid", "'+5'"),
        ("1.5 * * * * *", "CronFieldInvalid", "'1.5'"),
        ("٣ * * * * *", "CronFieldInvalid", "second"),
        ("JAN * * * * *", "CronFieldInvalid", "'JAN' is not known"),
        ("* * * * FRI *", "CronFieldInvalid", "'FRI' is not known"),
        ("* * * * * JUL", "CronFieldInvalid", "'JUL' is not known"),
        ("* * * * JANUARY *", "CronFieldInvalid", "'JANUARY'"),
        (f"{'x' * 90} * * * * *", "CronFieldInvalid", "…'"),
        ("0 0 0 30 2 *", "CronNeverFires", "no month of '2'"),
        ("0 0 0 31 4,6,9,NOV ?", "CronNeverFires", "a day of '31'"),
        ("0 0 30 FEB *", "CronNeverFires", "'FEB'"),
        ("0 0 0 31 2/2 */2", None, ""),
        ("0 0 0 30-31 2 */3", "CronNeverFires", "'30-31'"),
        ("@sometimes", "CronWordUnknown", "@daily"),
        ("@Daily", "CronWordUnknown", "@every"),
        ("@daily UTC", "CronWordUnknown", "'@daily UTC'"),
        ("TZ=Asia/Seoul 0 0 0 * * *", "CronZoneInside", "time zone"),
        ("CRON_TZ=Asia/Seoul 0 0 * * *", "CronZoneInside", "timezone"),
        (f"{'1,' * 600}1 * * * * *", "CronTooLong", "1000"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_is_refused(expression: str, code: str | None, said: str) -> None:
    if code is None:
        read_cron(expression)
        return
    with pytest.raises(BadInputError) as caught:
        read_cron(expression)

    assert caught.value.code == code
    assert said in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Asia", "../UTC", "x" * 5000, "a\0b"])
def test_a_zone_that_is_not_known_is_refused(zone: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read_cron("0 0 0 * * *", zone)

    assert caught.value.code == "TimezoneUnknown"


@pytest.mark.parametrize(
    ("expression", "zone", "after", "until", "expected"),
    [
        # New York leaves out 02:00 to 03:00 on 8 March 2026 ...
        ("0 30 2 * * *", "America/New_York", "2026-03-07T00:00", "2026-03-10T00:00",
         ["07 02:30-0500", "08 03:00-0400", "09 02:30-0400"]),
        ("0 */20 2 * * *", "America/New_York", "2026-03-08T00:00", "2026-03-09T00:00",
         ["08 03:00-0400"]),
        ("0 0,30 2,3 * * *", "America/New_York", "2026-03-08T00:00", "2026-03-09T00:00",
         ["08 03:00-0400", "08 03:30-0400"]),
        ("0 30 2,3 * * *", "America/New_York", "2026-03-08T00:00", "2026-03-09T00:00",
         ["08 03:00-0400", "08 03:30-0400"]),
        ("0 30 * * * *", "America/New_York", "2026-03-08T00:00", "2026-03-08T05:00",
         ["08 00:30-0500", "08 01:30-0500", "08 03:30-0400", "08 04:30-0400"]),
        ("0 0 */2 * * *", "America/New_York", "2026-03-08T00:00", "2026-03-08T07:00",
         ["08 03:00-0400", "08 04:00-0400", "08 06:00-0400"]),
        # ... and shows 01:00 to 02:00 twice on 1 November.
        ("0 30 1 * * *", "America/New_York", "2026-10-31T00:00", "2026-11-03T00:00",
         ["31 01:30-0400", "01 01:30-0400", "02 01:30-0500"]),
        ("0 30 0-22 * * *", "America/New_York", "2026-11-01T00:00", "2026-11-01T03:00",
         ["01 00:30-0400", "01 01:30-0400", "01 02:30-0500"]),
        ("0 30 * * * *", "America/New_York", "2026-11-01T00:00", "2026-11-01T03:00",
         ["01 00:30-0400", "01 01:30-0400", "01 01:30-0500", "01 02:30-0500"]),
        ("0 30 0-23 * * *", "America/New_York", "2026-11-01T00:00", "2026-11-01T03:00",
         ["01 00:30-0400", "01 01:30-0400", "01 01:30-0500", "01 02:30-0500"]),
        ("0 0 */2 * * *", "Europe/Berlin", "2026-10-25T00:00", "2026-10-25T05:00",
         ["25 02:00+0200", "25 04:00+0100"]),
        ("0 0 3 * * *", "Europe/Berlin", "2026-10-25T00:00", "2026-10-26T00:00",
         ["25 03:00+0100"]),
        # Half an hour: Lord Howe leaves out 02:00 to 02:30, and shows 01:30 to 02:00 twice.
        ("0 15 2 * * *", "Australia/Lord_Howe", "2026-10-04T00:00", "2026-10-05T00:00",
         ["04 02:30+1100"]),
        ("0 */15 * * * *", "Australia/Lord_Howe", "2026-10-04T01:30", "2026-10-04T03:00",
         ["04 01:45+1030", "04 02:30+1100", "04 02:45+1100", "04 03:00+1100"]),
        ("0 45 1 * * *", "Australia/Lord_Howe", "2026-04-05T00:00", "2026-04-06T00:00",
         ["05 01:45+1100"]),
        ("0 */15 * * * *", "Australia/Lord_Howe", "2026-04-05T01:15", "2026-04-05T02:00",
         ["05 01:30+1100", "05 01:45+1100", "05 01:30+1030", "05 01:45+1030", "05 02:00+1030"]),
        # Apia had no 30 December in 2011.
        ("0 0 12 * * *", "Pacific/Apia", "2011-12-29T00:00", "2012-01-01T00:00",
         ["29 12:00-1000", "31 00:00+1400", "31 12:00+1400"]),
        ("0 0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00", "2012-12-01T00:00",
         ["31 00:00+1400"]),
        ("0 0 */6 * * *", "Pacific/Apia", "2011-12-29T17:00", "2011-12-31T06:00",
         ["29 18:00-1000", "31 00:00+1400", "31 06:00+1400"]),
        ("0 0 * * * *", "Pacific/Apia", "2011-12-29T22:00", "2011-12-31T01:00",
         ["29 23:00-1000", "31 00:00+1400", "31 01:00+1400"]),
        # In São Paulo the gap was at midnight.
        ("@daily", "America/Sao_Paulo", "2018-11-03T12:00", "2018-11-05T12:00",
         ["04 01:00-0200", "05 00:00-0200"]),
        ("0 30 23 * * *", "America/Sao_Paulo", "2018-02-17T00:00", "2018-02-19T00:00",
         ["17 23:30-0200", "18 23:30-0300"]),
        # Casablanca's winter time is the month of Ramadan.
        ("0 30 2 * * *", "Africa/Casablanca", "2026-02-14T00:00", "2026-02-16T00:00",
         ["14 02:30+0100", "15 02:30+0100"]),
        ("0 30 2 * * *", "Africa/Casablanca", "2026-03-21T00:00", "2026-03-23T00:00",
         ["21 02:30+0000", "22 03:00+0100"]),
        ("0 30 2 * * *", "Asia/Seoul", "2026-03-08T00:00", "2026-03-09T00:00",
         ["08 02:30+0900"]),
    ],
)  # fmt: skip
def test_where_the_clocks_are_changed(
    expression: str, zone: str, after: str, until: str, expected: list[str]
) -> None:
    assert _local(expression, zone, after, until) == expected


def test_a_slot_in_the_second_of_two_equal_hours_has_none_before_it_in_that_hour() -> None:
    cron = read_cron("* * 1 * * *", "America/New_York")
    again = _second("2026-11-01T01:00:00-05:00")

    assert cron.latest(again + 1800) == again - 1
    assert cron.next(again + 1800) == _second("2026-11-02T01:00:00-05:00")
    assert cron.count(again - 3601, again + 3600) == 3600
    assert cron.count(again, again + 1800) == 0


def test_the_first_and_the_last_year() -> None:
    cron = read_cron("0 0 0 1 1 *")

    assert cron.next(-(10**12)) == FIRST
    assert cron.latest(FIRST) == FIRST
    assert cron.latest(FIRST - 1) is None
    assert cron.next(LAST - 400 * 86_400) is not None
    assert cron.next(LAST - 86_400) is None
    assert cron.latest(10**15) == _second("9998-01-01T00:00:00+00:00")
    assert cron.count(-(10**15), 10**15) == 9999 - 1900
    assert read_cron("0 0 0 29 2 *").next(LAST - 86_400) is None
    assert read_cron("0 0 0 1 1 *", "Asia/Seoul").latest(FIRST - 1) is None


_YEARS = 10 if SOAK else 2


@pytest.mark.parametrize("zone", _ZONES)
def test_years_beside_a_clock(zone: str) -> None:
    """Every half hour of years in which every kind of gap and fold lies; of ten in a soak.

    Without one, a cron with slots in every hour is walked through where clocks are changed.
    """
    begin = datetime(2010 if zone in ("Pacific/Apia", "America/Sao_Paulo") else 2020, 1, 1, 12)
    begin, end = begin.replace(tzinfo=UTC), begin.replace(year=begin.year + _YEARS, tzinfo=UTC)
    expressions = [
        "0 30 2 * * *", "0 */30 * * * *", "0 0 */3 * * *", "0 0 0 1,15 * 3",
        "0 30 0,1,23 */5 2-11 *",
    ]  # fmt: skip
    clockworks = [naive.Clockwork(each) for each in expressions]
    expected = naive.slots(clockworks, zone, begin, end, timedelta(minutes=30))

    first, last = second_of(begin) - 1, second_of(end) - 1
    for expression, instants in zip(expressions, expected, strict=True):
        cron = read_cron(expression, zone)
        slots = [second_of(each) for each in instants]
        assert len(slots) > 100
        assert cron.count(first, last) == len(slots)
        whole = SOAK or len(slots) < 10_000
        for begun, ended in [(first, last)] if whole else _around_changes(zone, first, last):
            within = [slot for slot in slots if begun < slot <= ended]
            assert within
            assert _forward(cron, begun, ended) == within
            assert _backward(cron, begun, ended) == within


def _around_changes(zone: str, first: int, last: int) -> list[tuple[int, int]]:
    """The fortnights between two seconds in which clocks are changed, and the first one."""
    week = 7 * 86_400
    changes = [second_of(change) for change in _changes(zone)]
    middles = [first + week, *(at for at in changes if first + week < at < last - week)]
    # The day that Apia left out is the last but one of its years.
    return [*((at - week, at + week) for at in middles), (last - week, last)]


@functools.cache
def _changes(zone: str) -> list[datetime]:
    """Where the clocks are changed within ten years."""
    info = ZoneInfo(zone)
    at = datetime(
        2010 if zone in ("Pacific/Apia", "America/Sao_Paulo") else 2020, 1, 1, tzinfo=UTC
    )
    found = []
    for _ in range(_YEARS * 365 * 24):
        at += timedelta(hours=1)
        before = (at - timedelta(hours=1)).astimezone(info).utcoffset()
        if at.astimezone(info).utcoffset() != before:
            found.append(at)
    return found or [datetime(2026, 3, 8, 7, tzinfo=UTC)]


@st.composite
def _field(draw: st.DrawFn, low: int, high: int, *, stepped: bool = True) -> str:
    """A field with numbers, some of which are likely near the night."""
    one = st.integers(low, high).map(str)
    # Of a range of one value croniter makes one that goes all the way round.
    pair = st.lists(st.integers(low, high), min_size=2, max_size=2, unique=True).map(sorted)
    step = st.integers(1, high)
    forms = [st.just("*"), one, pair.map(lambda p: f"{p[0]}-{p[1]}")]
    if stepped:
        forms += [
            st.builds("*/{}".format, step),
            st.builds("{}/{}".format, one, step),
            st.builds(lambda p, s: f"{p[0]}-{p[1]}/{s}", pair, step),
        ]
    return ",".join(draw(st.lists(st.one_of(forms), min_size=1, max_size=3)))


@st.composite
def _expressions(draw: st.DrawFn) -> str:
    hours = st.one_of(st.just("*"), st.integers(0, 4).map(str), _field(0, 23))
    parts = [draw(_field(0, 59)), draw(_field(0, 59)), draw(hours)]
    days = st.one_of(st.just("*"), _field(1, 28))
    return " ".join([*parts, draw(days), draw(_field(1, 12)), draw(_field(0, 6))])


@settings(max_examples=examples(40), deadline=None)
@given(expression=_expressions(), zone=st.sampled_from(_ZONES), seed=st.integers(0, 10**6))
def test_seconds_around_a_change_beside_a_clock(expression: str, zone: str, seed: int) -> None:
    draw = random.Random(seed)
    change = draw.choice(_changes(zone))
    begin = change - timedelta(hours=1, minutes=40)
    end = change + timedelta(hours=2, minutes=10)
    (expected,) = naive.slots(
        [naive.Clockwork(expression)], zone, begin, end, timedelta(seconds=1)
    )

    cron = read_cron(expression, zone)
    first, last = second_of(begin) - 1, second_of(end) - 1
    slots = [second_of(each) for each in expected]
    assert _forward(cron, first, last) == slots
    assert _backward(cron, first, last) == slots
    assert cron.count(first, last) == len(slots)
    middle = draw.randint(first, last)
    assert cron.count(first, middle) + cron.count(middle, last) == len(slots)
    after = [slot for slot in slots if slot > middle]
    if after:
        assert cron.next(middle) == after[0]


@st.composite
def _agreed(draw: st.DrawFn) -> str:
    """What croniter reads as robfig does: one of the two days has a plain star, or neither any."""
    time = [draw(_field(0, 59)), draw(_field(0, 59)), draw(_field(0, 23))]
    day, month = _field(1, 28), draw(_field(1, 12))
    weekday = _field(0, 6, stepped=False)
    days = draw(
        st.one_of(
            st.tuples(st.just("*"), st.just("*")),
            st.tuples(day, st.just("*")),
            st.tuples(st.just("*"), weekday),
            st.tuples(st.integers(1, 28).map(str), st.integers(0, 6).map(str)),
        )
    )
    return " ".join([*time, days[0], month, days[1]])


@settings(max_examples=examples(100), deadline=None)
@given(expression=_agreed(), start=st.integers(0, 4_000_000_000))
def test_beside_croniter(expression: str, start: int) -> None:
    other = croniter(expression, instant_at(start), second_at_beginning=True)
    cron = read_cron(expression)

    at = start
    for _ in range(4):
        found = cron.next(at)
        assert found == second_of(other.get_next(datetime))
        at = found
    assert _backward(cron, start, at) == _forward(cron, start, at)


@settings(max_examples=examples(100), deadline=None)
@given(
    expression=_expressions(),
    zone=st.sampled_from(_ZONES),
    at=st.integers(0, 4_000_000_000),
    length=st.integers(0, 10**9),
)
def test_forwards_and_backwards_and_counted_agree(
    expression: str, zone: str, at: int, length: int
) -> None:
    cron = read_cron(expression, zone)
    after = cron.next(at)
    before = cron.latest(at)

    if after is not None:
        assert after > at
        assert cron.latest(after) == after
        assert cron.latest(after - 1) == before
        assert cron.count(at, after) == 1
        assert cron.count(at, after - 1) == 0
    if before is not None:
        assert before <= at
        assert cron.next(before - 1) == before
        assert cron.next(before) == after
    whole = cron.count(at, at + length)
    assert cron.count(at, at + length // 3) + cron.count(at + length // 3, at + length) == whole
