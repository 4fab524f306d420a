from __future__ import annotations

import subprocess
import sys

import pytest

from infra import run_lock
from infra.home import Home
from infra.run_lock import AlreadyExecutedError
from tests.locks import holding

_HOLDER = """
import sys, time
from pathlib import Path
from infra import run_lock
from infra.home import Home
run_lock.acquire(Home(Path(sys.argv[1])), "run")
print("held", flush=True)
time.sleep(600)
"""
_ASKER = """
import sys
from pathlib import Path
from infra import run_lock
from infra.home import Home
print("asks", flush=True)
while True:
    run_lock.is_held(Home(Path(sys.argv[1])), "run")
"""


def test_a_run_that_nobody_ever_executed(home: Home) -> None:
    assert run_lock.is_held(home, "run") is None


def test_held_for_the_while(home: Home) -> None:
    with holding(home, "run"):
        assert run_lock.is_held(home, "run") is True
        assert run_lock.is_held(home, "other") is None
    assert run_lock.is_held(home, "run") is False


def test_an_exception_lets_go(home: Home) -> None:
    with pytest.raises(ZeroDivisionError), holding(home, "run"):
        raise ZeroDivisionError

    assert run_lock.is_held(home, "run") is False


def test_a_second_executor_is_kept_out_and_harms_nothing(home: Home) -> None:
    with holding(home, "run"):
        with pytest.raises(AlreadyExecutedError), holding(home, "run"):
            pass
        assert run_lock.is_held(home, "run") is True
    with holding(home, "run"):
        pass


def test_the_kernel_lets_go_when_the_holder_is_killed(home: Home) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(home.root)], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert run_lock.is_held(home, "run") is True
    with pytest.raises(AlreadyExecutedError), holding(home, "run"):
        pass

    holder.kill()
    holder.communicate()

    assert run_lock.is_held(home, "run") is False
    with holding(home, "run"):
        pass


def test_asking_keeps_no_executor_out(home: Home) -> None:
    with holding(home, "run"):
        pass
    command = [sys.executable, "-c", _ASKER, str(home.root)]
    askers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for asker in askers:
            assert asker.stdout is not None
            assert asker.stdout.readline() == b"asks\n"
        for _ in range(3000):
            with holding(home, "run"):
                pass
    finally:
        for asker in askers:
            asker.kill()
            asker.communicate()
