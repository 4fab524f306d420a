from __future__ import annotations

import os
import signal
from pathlib import Path

from infra.leashed import Leashed, leash_command


def _start(script: str, folder: Path, **env: str) -> Leashed:
    env = {"PATH": os.environ["PATH"], **env}
    return Leashed(["sh", "-c", script], env=env, cwd=folder, grace=0.2)


def test_output_is_both_streams_in_order(tmp_path: Path) -> None:
    process = _start("echo one; echo two >&2; echo three", tmp_path)

    assert process.output.read() == b"one\ntwo\nthree\n"
    assert process.wait() == 0


def test_environment_and_folder_are_those_given(tmp_path: Path) -> None:
    process = _start("echo $COLOUR $HOME; pwd", tmp_path, COLOUR="blue")

    assert process.output.read().decode().splitlines() == ["blue", str(tmp_path)]
    process.wait()


def test_stop_returns_at_once_and_may_be_repeated(tmp_path: Path) -> None:
    process = _start('trap "" TERM; echo ready; while :; do sleep 0.02; done', tmp_path)
    process.output.readline()

    process.stop()
    process.stop()

    assert process.wait() == -signal.SIGKILL


def test_wait_gives_the_exit_status(tmp_path: Path) -> None:
    assert _start("exit 3", tmp_path).wait() == 3


def test_leash_command_carries_every_option() -> None:
    command = leash_command(["--odd", "--"], grace=1.5, stop_signal=signal.SIGINT, main_first=True)

    options = command[4:]
    assert options == ["--signal", "2", "--grace", "1.5", "--first", "main", "--", "--odd", "--"]
