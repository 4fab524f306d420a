"""The scheduler with 10 000 schedules: how late it is, what it costs, and how soon it catches up.

Runs are created in a real Prefect, of a flow that no worker serves, so that nothing else uses the
machine. The peer of a burst is the same number of runs created by a loop of one's own, with as
many requests at once.
"""

from __future__ import annotations

import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import prefect.context
import psutil
import sqlalchemy
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from benchmarks import house
from benchmarks.house import House
from benchmarks.machine import Calm
from benchmarks.results import Comparison
from infra.connection import environment
from infra.home import Home
from registry import catalogue
from registry.schedules import schedules
from registry.schedules.schedules import ScheduleModel
from schedules import deciding
from schedules.instants import instant_at
from schedules.policy import SchedulePolicy
from schedules.trigger import Trigger

REPETITIONS = 1
_SCHEDULES = 10_000
_MISSED = 10_000
_BURST = 400
_AT_ONCE = 4
_IDLE_SECONDS, _BUSY_SECONDS = 20, 120
_DEPLOYMENT = "nothing/nothing"


def _row(name: str, start: int, interval: int, decided: int) -> dict[str, Any]:
    trigger = Trigger(interval_seconds=interval, start=instant_at(start), since=instant_at(start))
    now = datetime.now(UTC)
    return {
        "id": str(uuid.uuid4()), "name": name, "description": "", "deployment": _DEPLOYMENT,
        "parameters": {}, "trigger": trigger.model_dump(mode="json", exclude_none=True),
        "policy": SchedulePolicy().model_dump(mode="json"), "enabled": True, "paused": "",
        "registered": True, "error": "", "source": "", "decided_until": decided,
        "next_slot": deciding.next_slot(trigger, decided), "failures_since": 0,
        "created_at": now, "created_by": "b", "changed_at": now, "changed_by": "b",
    }  # fmt: skip


def _insert(rows: list[dict[str, Any]]) -> None:
    with catalogue.engine().begin() as connection:
        connection.execute(sqlalchemy.insert(ScheduleModel), rows)
        schedules.notify_changed(connection, "all")


def _asked(question: str, **given: Any) -> list[Any]:
    with catalogue.engine().connect() as connection:
        return list(connection.execute(sqlalchemy.text(question), given))


def _forget() -> None:
    with catalogue.engine().begin() as connection:
        connection.execute(sqlalchemy.text("TRUNCATE schedules, schedule_slots"))


def _until(holds: Callable[[], bool], seconds: float) -> float:
    """Seconds until something holds.

    Raises:
        RuntimeError: If it takes too long.
    """
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise RuntimeError("The scheduler does not get there.")
        time.sleep(0.05)
    return time.monotonic() - began


def _missed() -> float:
    """Seconds in which 10 000 missed slots of one schedule are decided."""
    now = int(time.time())
    first = now - 60 * _MISSED - 30
    _insert([_row("missed", first, 60, first)])
    count = "SELECT coalesce(sum(count), 0) FROM schedule_slots"
    return _until(lambda: _asked(count)[0][0] >= _MISSED, 120)


def _spread() -> tuple[float, float, list[float]]:
    """Shares of a core while idle and while busy, and how late each run was, in seconds."""
    scheduler = _process()
    begin = int(time.time()) + _IDLE_SECONDS + 10
    starts = [begin + number * 3600 // _SCHEDULES - 3600 for number in range(_SCHEDULES)]
    _insert([_row(f"s{n}", start, 3600, start + 1) for n, start in enumerate(starts)])
    time.sleep(5)
    idle = _share(scheduler, _IDLE_SECONDS)
    time.sleep(max(0.0, begin - time.time()))
    busy = _share(scheduler, _BUSY_SECONDS)
    late = _asked("SELECT run_at - slot FROM schedule_slots WHERE run_at IS NOT NULL")
    return idle, busy, [float(row[0]) for row in late]


def _process() -> psutil.Process:
    socket = str(Home(Path(os.environ["MODELYARD_HOME"])).sockets / "scheduler.sock")
    pids = {one.pid for one in psutil.net_connections("unix") if str(one.laddr) == socket}
    (pid,) = pids - {None}
    return psutil.Process(pid)


def _share(process: psutil.Process, seconds: float) -> float:
    """The share of a core that a process uses for a while, in percent."""
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    used = after.user - before.user + after.system - before.system
    return used / seconds * 100


def _burst() -> float:
    """Milliseconds for each of many runs that are due at once."""
    slot = int(time.time()) + 5
    _insert([_row(f"b{n}", slot - 60, 60, slot - 59) for n in range(_BURST)])
    done = "SELECT count(*) FROM schedule_slots WHERE slot = :slot AND run_at IS NOT NULL"
    _until(lambda: _asked(done, slot=slot)[0][0] >= _BURST, 180)
    last = _asked("SELECT max(run_at) FROM schedule_slots WHERE slot = :slot", slot=slot)[0][0]
    return float(last - slot) / _BURST * 1000


def _bare(deployment: uuid.UUID) -> float:
    """Milliseconds for each of as many runs that a loop of one's own creates."""
    with get_client(sync_client=True) as client, ThreadPoolExecutor(_AT_ONCE) as pool:
        began = time.monotonic()
        made = [
            pool.submit(client.create_flow_run_from_deployment, deployment) for _ in range(_BURST)
        ]
        for one in made:
            one.result()
        return (time.monotonic() - began) / _BURST * 1000


@contextmanager
def _pointed(home: House) -> Iterator[uuid.UUID]:
    """This process at the house's stack; the deployment whose runs nobody takes."""
    ours = environment(home.endpoints, Home(home.root))
    before = dict(os.environ)
    os.environ.update(ours)
    prefect.context.refresh_global_settings_context()
    try:
        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name="nobody", type="process"))
            flow = client.create_flow_from_name("nothing")
            yield client.create_deployment(flow, "nothing", work_pool_name="nobody")
    finally:
        catalogue.engine().dispose()
        os.environ.clear()
        os.environ.update(before)
        prefect.context.refresh_global_settings_context()


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Once: it takes minutes, and has thousands of values by itself."""
    del repetitions
    with house.temporary() as home:
        home.up()
        with _pointed(home) as deployment:
            calm.wait()
            missed = _missed()
            _forget()
            burst, bare = _burst(), _bare(deployment)
            _forget()
            calm.wait()
            idle, busy, late = _spread()
    p99 = statistics.quantiles(late, n=100)[98]
    return [
        Comparison(f"{_MISSED} missed slots are decided", "s", [missed], goal="10 s", limit=10),
        Comparison(f"each of {_BURST} runs that are due at once", "ms", [burst], [bare],
                   "a loop of one's own, four requests at once"),
        Comparison(f"{_SCHEDULES} hourly schedules: a run's lateness, p99", "s", [p99],
                   goal="1 s", limit=1),
        Comparison(f"{_SCHEDULES} hourly schedules: a run's lateness, median", "s",
                   [statistics.median(late)]),
        Comparison(f"{_SCHEDULES} hourly schedules: share of a core, between slots", "%", [idle],
                   goal="5 %", limit=5),
        Comparison(f"{_SCHEDULES} hourly schedules: share of a core, 2.8 runs a second", "%",
                   [busy]),
    ]  # fmt: skip
