from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from infra.home import Home
from infra.stack import orphans
from tests.processes import runs

Start = Callable[[Mapping[str, str]], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def popen(marks: Mapping[str, str]) -> subprocess.Popen[bytes]:
        script = "import time; print('up', flush=True); time.sleep(600)"
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", script],
            env={**os.environ, **marks},
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()


def test_what_bears_the_homes_mark_is_ended(home: Home, start: Start) -> None:
    ours = [start(orphans.mark(home, part)) for part in ("database", "worker")]
    others = start(orphans.mark(Home(Path(f"{home.root}2")), "database"))
    nobodys = start({})

    assert orphans.end(home) >= 2

    assert not any(runs(process.pid) for process in ours)
    assert runs(others.pid)
    assert runs(nobodys.pid)
    assert orphans.end(home) == 0


def test_one_part_can_be_ended_alone(home: Home, start: Start) -> None:
    database = start(orphans.mark(home, "database"))
    worker = start(orphans.mark(home, "worker"))

    assert orphans.end_part(home, "database") == 1

    assert not runs(database.pid)
    assert runs(worker.pid)


def test_this_process_is_spared(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in orphans.mark(home, "supervisor").items():
        monkeypatch.setenv(name, value)

    assert orphans.end(home) == 0


def test_only_scripts_of_runs_that_are_over_are_ended(home: Home, start: Start) -> None:
    alive = start(orphans.run_mark(home, "alive"))
    over = [start(orphans.run_mark(home, "over")) for _ in range(2)]
    elsewhere = start(orphans.run_mark(Home(home.root / "other"), "over"))
    asked: list[str] = []

    def is_alive(run: str) -> bool:
        asked.append(run)
        return run == "alive"

    assert orphans.end_runs(home, is_alive) == 2

    assert not any(runs(process.pid) for process in over)
    assert runs(alive.pid)
    assert runs(elsewhere.pid)
    assert set(asked) == {"alive", "over"}


def test_parts_and_runs_are_told_apart(home: Home, start: Start) -> None:
    script = start(orphans.run_mark(home, "run"))
    part = start(orphans.mark(home, "database"))

    assert orphans.end_runs(home, lambda _: False) == 1
    assert not runs(script.pid)
    assert runs(part.pid)
