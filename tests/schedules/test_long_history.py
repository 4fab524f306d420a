"""What is shown of a schedule reads as many rows of a long history as of a short one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy

from registry import catalogue
from registry.runs import runs
from registry.runs.run_filters import RunGroup
from registry.schedules import scheduled_runs, slot_counts, slots
from registry.schedules.slots import Fate
from schedules import metrics, verbs, views
from tests.schedules.asking import HOUR, checked, create, pass_hours
from tests.schedules.conftest import BEGINNING
from tests.schedules.world import World

_SHORT, _LONG = 1_000, 10_000


@pytest.fixture
def schedule(world: World) -> str:
    """A schedule with a slot skipped long ago, and since then one each hour that had a run."""
    key = str(create("s")["id"])
    _add(key, -_LONG - 1, -_LONG - 1, "skipped")
    _add(key, -_SHORT, -1, "created")
    return key


def _add(schedule: str, first: int, last: int, fate: str) -> None:
    with catalogue.engine().begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO schedule_slots "
                "SELECT :schedule, at, 'scheduled', at, 1, :fate, '', 0, false, 'run ' || n, "
                "CASE :fate WHEN 'created' THEN at END, 'COMPLETE', at, 'me' "
                "FROM generate_series(CAST(:first AS int), :last) n, "
                "LATERAL (SELECT CAST(:now AS bigint) + :hour * n AS at)"
            ),
            {"schedule": schedule, "first": first, "last": last, "fate": fate,
             "now": int(BEGINNING), "hour": HOUR},
        )  # fmt: skip
    with catalogue.engine().execution_options(isolation_level="AUTOCOMMIT").connect() as analysing:
        analysing.execute(sqlalchemy.text("ANALYZE schedule_slots"))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _rows_read(work: Callable[[], object]) -> int:
    """The rows of tables and indexes that the queries of ``work`` look at."""
    asked: list[tuple[str, Any]] = []

    def asking(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        asked.append((statement, parameters))

    engine = catalogue.engine()
    sqlalchemy.event.listen(engine, "before_cursor_execute", asking)
    try:
        work()
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", asking)
    read = 0
    with engine.connect() as connection:
        for statement, parameters in asked:
            explained = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
            ).scalar_one()
            [found] = explained if isinstance(explained, list) else json.loads(explained)
            for node in _nodes(found["Plan"]):
                if "Relation Name" in node:
                    each = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                    read += int(each * node["Actual Loops"])
    assert asked
    return read


def _last_ended(schedule: str) -> list[str]:
    with catalogue.engine().connect() as connection:
        return list(slots.last_ended(connection, schedule, 0, 3))


@pytest.mark.parametrize(
    "ask",
    [
        views.show,
        views.slots_of,
        lambda key: views.slots_of(key, fate="skipped"),
        lambda key: views.slots_of(key, fate="waiting"),
        _last_ended,
        lambda key: slot_counts.number(key, int(BEGINNING) - 5 * HOUR),
        lambda key: metrics.text(),
    ],
    ids=["show", "slots", "slots skipped", "slots waiting", "last ended", "number", "metrics"],
)  # fmt: skip
def test_it_reads_no_more_rows_of_a_long_history(
    schedule: str, ask: Callable[[str], object]
) -> None:
    short = _rows_read(lambda: ask(schedule))
    _add(schedule, -_LONG, -_SHORT - 1, "created")

    assert _rows_read(lambda: ask(schedule)) <= short < _SHORT / 10


def test_slots_are_counted_whatever_changes_them(world: World) -> None:
    key = str(create("s", policy={"catchup": "all"})["id"])
    pass_hours(world, 3)
    verbs.trigger_now(key)
    with catalogue.engine().begin() as connection:
        slots.decide_waiting(connection, key, Fate.SKIPPED, "for a test: of this one alone")
    verbs.trigger_now(key)
    pass_hours(world, 2)

    with catalogue.engine().connect() as connection:
        told = slots.of(connection, key)
    counted: dict[tuple[str, str], int] = {}
    for slot in told:
        counted[slot.fate, slot.reason] = counted.get((slot.fate, slot.reason), 0) + slot.count
    assert {fate for fate, _ in counted} >= {"created", "skipped"}
    assert slot_counts.fates_of(key) == counted
    assert sum(slot_counts.fates_of(key).values()) == sum(slot.count for slot in told)


def test_a_slots_number_is_its_place_among_those_with_a_run(schedule: str) -> None:
    assert slot_counts.number(schedule, int(BEGINNING) - HOUR) == _SHORT
    assert slot_counts.number(schedule, int(BEGINNING) - _SHORT * HOUR) == 1
    assert slot_counts.number(schedule, int(BEGINNING)) == _SHORT + 1


def test_its_runs_have_the_tag_of_any_name_that_it_had(world: World) -> None:
    key = create("s")["id"]
    verbs.update("s", checked, name="t")
    verbs.update("t", checked, description="renamed")

    assert scheduled_runs.group("t") == RunGroup(
        ("schedule:s", "schedule:t"), labels={runs.SCHEDULE_LABEL: key}
    )
