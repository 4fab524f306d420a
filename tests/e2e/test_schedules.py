"""Schedules on the real stack: slots, their runs, and schedulers that die."""

import ast
import json
import os
import signal
import subprocess
import sys
import urllib.error

import pytest

from tests.e2e.stack import flags, wait_for

pytestmark = pytest.mark.e2e

_ANOTHER = """
from flows.connection import connected
from modelyard import scheduler
with connected():
    scheduler.main()
"""
_FIND = """
from datetime import datetime
from flows.connection import connected
from registry.schedules import scheduled_runs
from registry.schedules.slots import Fate, Slot
for late in (0, 1):
    at = int(datetime.fromisoformat("{slot}").timestamp()) + late
    with connected():
        print(scheduled_runs.find(Slot("{key}", at, "scheduled", at, 1, Fate.WAITING)))
"""
_STEPS = {"hyperparameters": {"steps": 1}}


def _create(stack, name, *options):
    return stack.do("schedule", "create", name, "train", *options, *flags("steps", _STEPS))


def _slots(stack, name):
    return stack.do("schedule", "show", name, "--last", "1000")["slots"]


def _created(stack, name, count):
    found = [row for row in _slots(stack, name) if row["fate"] == "created"]
    return found if len(found) >= count else None


def _leader(stack, name):
    found = stack.do("schedule", "show", name)["scheduler"]
    return found and int(found["holder"].split(":")[1])


def test_a_schedules_life(stack):
    made = _create(stack, "often", "--interval", "4", "--policy", "max_concurrency=2")
    assert made["state"] in {"CREATE REQUESTED", "ENABLED"}
    first = wait_for(lambda: _created(stack, "often", 2), 60, "two slots have runs")[-1]
    run = stack.wait_for_state(first["run"], "COMPLETE", timeout=90)
    assert run["name"].startswith("often-20")
    assert run["schedule"] == "often"
    assert run["slot"] == first["slot"]

    assert stack.do("schedule", "stop", "often")["state"] == "DISABLED"
    for row in _slots(stack, "often"):
        if row["run"]:
            stack.wait_for_state(row["run"], "COMPLETE", timeout=90)
    assert stack.do("schedule", "start", "often")["state"] == "ENABLED"
    wait_for(lambda: _created(stack, "often", 4), 60, "what was missed is caught up")
    stack.do("schedule", "stop", "often")
    going = next(row for row in _slots(stack, "often") if row["run"])
    stack.wait_for_state(going["run"], "COMPLETE", timeout=90)

    changed = stack.do("schedule", "update", "often", "--cron", "0 0 4 1 1 *")
    assert changed["id"] == made["id"]
    assert changed["when"] == "0 0 4 1 1 *"
    assert len(changed["slots"]) >= 4

    def deleted():
        return stack.ask("schedule", "delete", "often").code == 0

    wait_for(deleted, 90, "its last run has ended")
    assert stack.ask("schedule", "show", "often").error["code"] == "ScheduleUnknown"
    assert _slots(stack, made["id"])


def test_prefect_shows_the_slots_to_come(stack):
    _create(stack, "yearly", "--cron", "0 0 4 1 1 *")

    def shown():
        try:
            rows = json.loads(stack.prefect("artifacts/upcoming-slots/latest")["data"])
        except urllib.error.HTTPError:
            return []
        return [row for row in rows if row["schedule"] == "yearly"]

    (row,) = wait_for(shown, 60, "the slots to come are shown")
    assert row["slot"].endswith("-01-01T04:00:00Z")
    assert row["runs"] == "train"
    stack.do("schedule", "delete", "yearly")


def test_a_run_that_is_retried_counts_among_its_schedules_again(stack):
    slow = {"hyperparameters": {"steps": 1500}}
    stack.do("schedule", "create", "slow", "train", "--interval", "5", *flags("steps", slow))

    def state_of(run):
        (found,) = [row["state"] for row in _slots(stack, "slow") if row["run"] == run]
        return found

    wait_for(lambda: _created(stack, "slow", 1), 60, "the first slot has its run")
    (first,) = [row["run"] for row in _created(stack, "slow", 1)]
    stack.wait_for_state(first, "RUNNING")
    stack.do("runs", "stop", first)
    wait_for(lambda: _created(stack, "slow", 2), 60, "the next slot has its run")
    assert state_of(first) == "STOPPED"

    stack.do("runs", "retry", first)
    wait_for(lambda: state_of(first) != "STOPPED", 60, "it is known to go on")
    second = _created(stack, "slow", 2)[0]["run"]
    stack.do("runs", "stop", second)
    wait_for(lambda: state_of(second) == "STOPPED", 90, "the second run is known to have ended")
    assert len(_created(stack, "slow", 2)) == 2
    stack.do("schedule", "stop", "slow")
    stack.do("runs", "stop", first)
    stack.do("runs", "delete", second)


def test_what_has_become_of_runs(stack):
    made = [stack.start("fails", name="fails for a schedule"), stack.start("steps", name="steps")]
    for run, word in zip(made, ["FAIL TRAIN", "COMPLETE"], strict=True):
        stack.wait_for_state(run, word)
    waits = stack.start("steps", hyperparameters={"steps": 900})
    gone = "00000000-0000-4000-8000-000000000000"
    asked = [*made, waits, gone]
    found = stack.execute(
        "from flows.connection import connected; from registry.schedules import scheduled_runs\n"
        f"with connected(): print(scheduled_runs.ended({asked}))"
    )
    stack.do("runs", "stop", waits)
    assert ast.literal_eval(found) == {made[0]: "FAIL TRAIN", made[1]: "COMPLETE", gone: "DELETED"}


def test_a_run_is_found_by_its_slot(stack):
    made = _create(stack, "found", "--interval", "4")
    row = wait_for(lambda: _created(stack, "found", 1), 60, "a slot has its run")[0]
    stack.do("schedule", "stop", "found")

    told = stack.execute(_FIND.format(slot=row["slot"], key=made["id"]))
    assert told.split() == [row["run"], "None"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--cron", "0 0 0 30 2 *"), "CronNeverFires"),
        (("--interval", "60", "-p", "max_minutes=-1"), "MaxMinutesInvalid"),
    ],
)
def test_what_can_never_work_is_refused_when_it_is_written(stack, options, code):
    answer = stack.ask("schedule", "create", "wrong", "train", *flags("steps", _STEPS), *options)
    assert answer.error["code"] == code
    assert stack.ask("schedule", "show", "wrong").code != 0


@pytest.mark.soak
def test_another_scheduler_takes_over_from_one_that_hangs(spare):
    _create(spare, "steady", "--interval", "2", "--policy", "max_concurrency=9")
    wait_for(lambda: _created(spare, "steady", 1), 60, "the first slot has its run")
    pid = _leader(spare, "steady")
    other = subprocess.Popen([sys.executable, "-c", _ANOTHER], env=spare.env, cwd=spare.home)
    try:
        wait_for(lambda: len(_slots(spare, "steady")) > 2, 60, "slots are decided")
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: _leader(spare, "steady") == other.pid, 60, "the other one leads")
        before = len(_slots(spare, "steady"))
        wait_for(lambda: len(_slots(spare, "steady")) > before + 1, 30, "it goes on")
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: len(_slots(spare, "steady")) > before + 4, 30, "it still goes on")
        rows = _slots(spare, "steady")
    finally:
        spare.do("schedule", "stop", "steady")
        other.terminate()
        other.wait(30)
    assert len({row["slot"] for row in rows}) == len(rows)
    assert len({row["run"] for row in rows if row["run"]}) == sum(bool(r["run"]) for r in rows)
