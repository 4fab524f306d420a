"""What components print, in the file and in Prefect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.pipelines import logs
from tasks.pipelines.logs import RunLog


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    return now


def test_each_line_is_in_the_file_and_shown_with_its_task(tmp_path: Path) -> None:
    shown: list[str] = []
    log = RunLog(tmp_path / "runs" / "log", 10)
    with log.of("a/b", shown.append):
        log.write("a/b", "one")
        log.write("a/b", "half of a pair \ud800")
    log.close()
    assert shown == ["a/b | one", "a/b | half of a pair \ud800"]
    assert log.file.read_text() == "a/b | one\na/b | half of a pair ?\n"


def test_a_retry_goes_on_with_the_file(tmp_path: Path) -> None:
    for line in ("first", "second"):
        log = RunLog(tmp_path / "log", 10)
        log.write("a", line)
        log.close()
    assert log.file.read_text() == "a | first\na | second\n"


def test_what_is_too_much_is_held_back_and_counted(tmp_path: Path, clock: list[float]) -> None:
    shown: list[str] = []
    log = RunLog(tmp_path / "log", 3)
    with log.of("a", shown.append):
        for number in range(1000):
            log.write("a", str(number))
        clock[0] += 1
        log.write("a", "later")
        for number in range(10):
            log.write("a", str(number))
    assert shown == [
        "a | 0", "a | 1", "a | 2", "a | ... 997 more lines, in the run's log file only",
        "a | later", "a | 0", "a | 1", "a | ... 8 more lines, in the run's log file only",
    ]  # fmt: skip
    assert len(log.file.read_text().splitlines()) == 1011


def test_all_tasks_together_are_bounded_too(tmp_path: Path) -> None:
    shown: list[str] = []
    log = RunLog(tmp_path / "log", 3)
    for task in range(100):
        with log.of(str(task), shown.append):
            for number in range(3):
                log.write(str(task), str(number))
    assert sum("more lines" not in line for line in shown) == 15
    assert sum("more lines" in line for line in shown) == 95


def test_a_line_of_a_task_that_nobody_shows_is_in_the_file(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log", 3)
    log.write("a", "x")
    assert log.file.read_text() == "a | x\n"
