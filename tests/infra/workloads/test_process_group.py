from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.workloads import process_group
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.process_group import LineSplitter, RateLimitedLog
from tests.processes import eventually, pid_in, runs

Run = Callable[..., ExitStatus]


# Counts in its output, and after each number in a file of its own.
_COUNTING = """
import itertools, os
file = open("printed", "wb", buffering=0)
for number in itertools.count(1):
    os.write(1, b"%d\\n" % number)
    file.write(b"%d\\n" % number)
    if number == 1:
        open("pid", "w").write(str(os.getpid()))
"""
_KILLED_OWNER = """
import pathlib, sys
from infra.workloads import process_group
process_group.run(
    [process_group.ProcessSpec([sys.argv[1], "-c", sys.argv[2]], {})],
    cwd=pathlib.Path(), log=pathlib.Path("train.log"), on_line=lambda *_: None,
    deadline=None, stop_requested=lambda: False, grace=0.3,
)
"""


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def run(tmp_path: Path, lines: list[str]) -> Run:
    def started(text: str, *, shell: bool = True, **options: Any) -> ExitStatus:
        command = ["sh", "-c", text] if shell else [sys.executable, "-u", "-c", text]
        env = options.pop("env", {"PATH": os.environ["PATH"]})
        return process_group.run(
            [process_group.ProcessSpec(command, env)],
            **{
                "cwd": tmp_path,
                "log": tmp_path / "train.log",
                "on_line": lambda _, line: lines.append(line),
                "deadline": None,
                "stop_requested": lambda: False,
                "grace": 0.3,
                **options,
            },
        )

    return started


class TestLines:
    @pytest.mark.parametrize(
        ("chunks", "lines"),
        [
            ([b"one\ntwo\n"], ["one", "two"]),
            ([b"one\r\ntwo\r\n"], ["one", "two"]),
            ([b"10%\r20%\r30%\n"], ["10%", "20%", "30%"]),
            ([b"one\r", b"\ntwo\n"], ["one", "two"]),
            ([b"o", b"n", b"e\nt", b"wo"], ["one", "two"]),
            ([b"\n\n\r\r\n", b"\n"], []),
            ([b" one \n"], [" one "]),
            (["손실=1\n".encode()[:2], "손실=1\n".encode()[2:]], ["손실=1"]),
            ([b"caf\xc3", b"\xa9\n"], ["café"]),
            ([b"\xffodd\n"], ["\ufffdodd"]),
            ([b"one\x0btwo\x0cthree\xe2\x80\xa8four\n"], ["one\x0btwo\x0cthree\u2028four"]),
            ([b"no end"], ["no end"]),
            ([], []),
        ],
    )
    def test_lines_are_cut(self, chunks: list[bytes], lines: list[str]) -> None:
        cutter = LineSplitter()

        found = [line for chunk in chunks for line in cutter.feed(chunk)]

        assert found + cutter.close() == lines
        assert cutter.close() == []

    def test_a_line_comes_when_its_end_does(self) -> None:
        cutter = LineSplitter()

        assert cutter.feed(b"one") == []
        assert cutter.feed(b"\n") == ["one"]

    @pytest.mark.parametrize("end", [b"", b"\n"])
    def test_a_huge_line_is_cut(self, end: bytes) -> None:
        cutter = LineSplitter()
        huge = b"x" * 300_000

        found = cutter.feed(huge + end) + cutter.close()

        assert "".join(found) == huge.decode()
        assert max(map(len, found)) <= 64 * 1024

    @given(
        text=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]),
                              min_size=1)),
        size=st.integers(1, 7),
    )  # fmt: skip
    @hypothesis_settings(database=None, deadline=None)
    def test_however_it_comes(self, text: list[str], size: int) -> None:
        data = "\n".join(text).encode()
        cutter = LineSplitter()

        found = [
            line
            for start in range(0, len(data), size)
            for line in cutter.feed(data[start : start + size])
        ]

        assert found + cutter.close() == text


class TestRun:
    def test_a_script_that_ends_well(self, run: Run, lines: list[str], tmp_path: Path) -> None:
        ended = run("echo one; echo two >&2; printf three")

        assert ended == ExitStatus(0, tail=("one", "two", "three"))
        assert lines == ["one", "two", "three"]
        assert (tmp_path / "train.log").read_bytes() == b"one\ntwo\nthree"

    @pytest.mark.parametrize(
        ("text", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -TERM $$", -15)]
    )
    def test_a_script_that_fails(self, run: Run, text: str, code: int) -> None:
        ended = run(text)

        assert (ended.cause, ended.code) == (ExitCause.EXITED, code)

    def test_the_log_goes_on_where_it_was(self, run: Run, tmp_path: Path) -> None:
        run("echo first")
        run("echo second")

        assert (tmp_path / "train.log").read_text() == "first\nsecond\n"

    def test_the_log_is_as_it_was_printed(self, run: Run, tmp_path: Path) -> None:
        run(r"printf '10%%\r20%%\r\n\377'")

        assert (tmp_path / "train.log").read_bytes() == b"10%\r20%\r\n\xff"

    def test_the_tail_is_the_last_lines(self, run: Run, lines: list[str]) -> None:
        ended = run("seq 1000")

        assert ended.tail == tuple(map(str, range(981, 1001)))
        assert lines == [str(number) for number in range(1, 1001)]

    def test_much_output_is_not_lost(self, run: Run, lines: list[str]) -> None:
        run("print('x' * 99 + '\\n' * 1, end='')\nfor i in range(50_000): print(i, 'y' * 50)",
            shell=False)  # fmt: skip

        assert len(lines) == 50_001
        assert lines[-1].startswith("49999 ")

    @pytest.mark.parametrize("seed", range(6))
    def test_a_kill_of_its_reader_loses_nothing_that_it_wrote(
        self, tmp_path: Path, seed: int
    ) -> None:
        owner = subprocess.Popen(
            [sys.executable, "-c", _KILLED_OWNER, sys.executable, _COUNTING], cwd=tmp_path
        )
        script = pid_in(tmp_path / "pid")
        time.sleep(random.Random(seed).uniform(0, 0.1))

        owner.kill()
        owner.wait()

        eventually(lambda: not runs(script), "the script is ended")
        printed = int((tmp_path / "printed").read_bytes().split()[-1])
        assert len((tmp_path / "train.log").read_text().splitlines()) >= printed > 0

    @pytest.mark.parametrize("code", [0, 1])
    def test_a_script_that_fails_on_a_full_disk(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))

        with pytest.raises(OSError, match="No space") if code else contextlib.nullcontext():
            run(f"exit {code}")

    def test_lines_come_as_they_appear(self, run: Run, tmp_path: Path) -> None:
        seen: list[str] = []

        def on_line(_: int, line: str) -> None:
            seen.append(line)
            (tmp_path / "go").touch()

        ended = run("echo one; until [ -e go ]; do sleep 0.02; done; echo two", on_line=on_line)

        assert (ended.code, seen) == (0, ["one", "two"])

    def test_it_reads_nothing(self, run: Run, lines: list[str]) -> None:
        run("cat; echo end")

        assert lines == ["end"]

    def test_environment_and_folder(self, run: Run, lines: list[str], tmp_path: Path) -> None:
        run("echo $COLOUR $HOME; pwd", env={"PATH": os.environ["PATH"], "COLOUR": "blue"})

        assert lines == ["blue", str(tmp_path)]

    def test_a_command_that_is_missing(self, tmp_path: Path, lines: list[str]) -> None:
        ended = process_group.run(
            [process_group.ProcessSpec(["/nowhere/python"], {})],
            cwd=tmp_path, log=tmp_path / "log",
            on_line=lambda _, line: lines.append(line),
            deadline=None, stop_requested=lambda: False, grace=1,
        )  # fmt: skip

        assert ended.code == 127
        assert "cannot run /nowhere/python" in lines[0]

    def test_a_stop_leaves_time_to_tidy_up(self, run: Run, lines: list[str]) -> None:
        ended = run(
            'trap "echo tidy; exit 4" TERM; echo ready; while :; do sleep 0.02; done',
            stop_requested=lambda: "ready" in lines,
            grace=30,
        )

        assert (ended.cause, ended.code) == (ExitCause.STOPPED, 4)
        assert lines[-1] == "tidy"

    def test_a_script_that_ignores_the_stop_is_killed_with_all_it_started(
        self, run: Run, lines: list[str], tmp_path: Path
    ) -> None:
        far = 'trap "" TERM; echo $$ > far; while :; do sleep 0.05; done'
        ended = run(
            f"""trap "" TERM; echo $$ > near; setsid sh -c '(setsid sh -c "$1" &)' _ '{far}'
            until [ -s far ]; do sleep 0.02; done; echo ready; while :; do sleep 0.05; done""",
            stop_requested=lambda: "ready" in lines,
        )

        assert (ended.cause, ended.code) == (ExitCause.STOPPED, -signal.SIGKILL)
        assert not runs(pid_in(tmp_path / "near"))
        assert not runs(pid_in(tmp_path / "far"))

    def test_the_deadline_ends_it(self, run: Run) -> None:
        ended = run("echo busy; sleep 600", deadline=time.monotonic() + 0.2)

        assert (ended.cause, ended.code) == (ExitCause.TIMED_OUT, -signal.SIGTERM)
        assert ended.tail in {("busy",), ()}

    def test_a_script_that_ends_before_its_deadline(self, run: Run) -> None:
        assert run("exit 0", deadline=time.monotonic() + 600).cause is ExitCause.EXITED

    def test_what_it_leaves_running_ends_with_it(self, run: Run, tmp_path: Path) -> None:
        ended = run("setsid sleep 600 & echo $! > left; echo done")

        assert ended == ExitStatus(0, tail=("done",))
        assert not runs(pid_in(tmp_path / "left"))

    def test_an_exception_ends_it_first(self, run: Run, tmp_path: Path) -> None:
        def on_line(_: int, line: str) -> None:
            raise ZeroDivisionError(line)

        with pytest.raises(ZeroDivisionError):
            run("echo $$ > pid; echo ready; exec sleep 600", on_line=on_line)

        assert not runs(pid_in(tmp_path / "pid"))

    def test_a_signal_handlers_exception_ends_it_first(
        self, run: Run, tmp_path: Path, lines: list[str]
    ) -> None:
        class StoppedError(Exception):
            pass

        def on_signal(*_: object) -> None:
            raise StoppedError

        def send() -> None:
            eventually(lambda: "ready" in lines, "it runs")
            os.kill(os.getpid(), signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, on_signal)
        sender = threading.Thread(target=send)
        sender.start()
        try:
            with pytest.raises(StoppedError):
                run("echo $$ > pid; echo ready; exec sleep 600")
            assert signal.getsignal(signal.SIGTERM) is on_signal
        finally:
            sender.join()
            signal.signal(signal.SIGTERM, before)
        assert not runs(pid_in(tmp_path / "pid"))

    def test_it_can_be_run_from_any_thread(self, run: Run, lines: list[str]) -> None:
        thread = threading.Thread(target=run, args=("echo one",))
        thread.start()
        thread.join()

        assert lines == ["one"]


class TestRateLimitedLog:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        clock = SimpleNamespace(now=1000.0)
        monkeypatch.setattr(process_group, "time", SimpleNamespace(monotonic=lambda: clock.now))
        return clock

    def test_a_few_lines_pass(self, clock: SimpleNamespace) -> None:
        passed: list[str] = []
        forward = RateLimitedLog(passed.append, 3)
        for line in "abc":
            forward(line)
        forward.close()

        assert passed == ["a", "b", "c"]

    def test_what_is_too_much_is_counted(self, clock: SimpleNamespace) -> None:
        passed: list[str] = []
        forward = RateLimitedLog(passed.append, 2)
        for line in "abcde":
            forward(line)
        clock.now += 1
        for line in "fgh":
            forward(line)
        forward.close()
        forward.close()

        assert passed == [
            "a", "b", "... 3 more lines, in the run's log file only",
            "f", "g", "... 1 more lines, in the run's log file only",
        ]  # fmt: skip

    def test_each_second_counts_anew(self, clock: SimpleNamespace) -> None:
        passed: list[str] = []
        forward = RateLimitedLog(passed.append, 1)
        for line in "abc":
            forward(line)
            clock.now += 1

        assert passed == ["a", "b", "c"]


class TestSeveral:
    @pytest.fixture
    def several(self, tmp_path: Path) -> Run:
        def started(*texts: str, **options: Any) -> ExitStatus:
            seen: list[tuple[int, str]] = options.pop("seen", [])
            return process_group.run(
                [
                    process_group.ProcessSpec(
                        ["sh", "-c", text], {"PATH": os.environ["PATH"]}, f"node {n}"
                    )
                    for n, text in enumerate(texts)
                ],
                **{
                    "cwd": tmp_path,
                    "log": tmp_path / "train.log",
                    "on_line": lambda number, line: seen.append((number, line)),
                    "deadline": None,
                    "stop_requested": lambda: False,
                    "grace": 0.3,
                    **options,
                },
            )

        return started

    def test_all_end_well(self, several: Run, tmp_path: Path) -> None:
        seen: list[tuple[int, str]] = []

        ended = several("echo a", "echo b", seen=seen)

        assert (ended.cause, ended.code) == (ExitCause.EXITED, 0)
        assert sorted(seen) == [(0, "a"), (1, "b")]
        log = (tmp_path / "train.log").read_text().splitlines()
        assert sorted(log) == ["[node 0] a", "[node 1] b"]

    def test_they_run_at_the_same_time(self, several: Run) -> None:
        wait = "touch {0}; until [ -e {1} ]; do sleep 0.02; done; echo {0}"

        assert several(wait.format("a", "b"), wait.format("b", "a")).code == 0

    def test_the_first_that_fails_ends_all(self, several: Run, tmp_path: Path) -> None:
        ended = several("echo $$ > pid; echo x; exec sleep 600", "echo broken; exit 3")

        assert ended == ExitStatus(3, tail=("broken",), process="node 1")
        assert not runs(pid_in(tmp_path / "pid"))

    def test_who_was_killed_is_the_reason(
        self, several: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process_group, "_SETTLE_SECONDS", 30.0)

        ended = several("exit 1", "sleep 0.2; echo killed; kill -9 $$")

        assert (ended.process, ended.code, ended.tail) == ("node 1", -9, ("killed",))

    def test_who_is_ended_with_the_others_is_not(self, several: Run) -> None:
        ended = several("trap 'exit 7' TERM; while :; do sleep 0.02; done", "exit 1")

        assert (ended.process, ended.code) == ("node 1", 1)

    def test_who_printed_nothing_is_named(self, several: Run) -> None:
        assert several("echo a", "exit 1").silent == ("node 1",)

    def test_a_stop_ends_all(self, several: Run, tmp_path: Path) -> None:
        ended = several(
            "echo $$ > pid0; exec sleep 600", "echo $$ > pid1; exec sleep 600",
            stop_requested=lambda: (tmp_path / "pid0").exists() and (tmp_path / "pid1").exists(),
        )  # fmt: skip

        assert ended.cause is ExitCause.STOPPED
        assert not runs(pid_in(tmp_path / "pid0"))
        assert not runs(pid_in(tmp_path / "pid1"))

    def test_one_that_cannot_start_ends_all(self, several: Run, tmp_path: Path) -> None:
        processes = [
            process_group.ProcessSpec(["sleep", "600"], {"PATH": os.environ["PATH"]}, "node 0"),
            process_group.ProcessSpec(["/nowhere"], {}, "node 1"),
        ]

        ended = process_group.run(
            processes, cwd=tmp_path, log=tmp_path / "log", on_line=lambda *_: None,
            deadline=None, stop_requested=lambda: False, grace=0.3,
        )  # fmt: skip

        assert (ended.process, ended.code) == ("node 1", 127)
