"""The local stack: up, down, twice, killed."""

import contextlib
import functools
import os
import pty
import select
import signal
import socket
import subprocess
import threading

import psutil
import pytest

from tests.e2e.stack import MODELYARD, flags, kill, wait_for

pytestmark = pytest.mark.e2e


def test_it_binds_to_loopback_only_and_its_database_to_no_port(stack):
    addresses = set()
    for process in stack.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # a run's that ended before
            name = process.name()
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    addresses.add(connection.laddr.ip)
                    assert "postgres" not in name
    assert addresses == {"127.0.0.1"}
    assert stat_mode(stack.home / "sockets") == 0o700
    assert stat_mode(stack.home) == 0o700


def stat_mode(path):
    return path.stat().st_mode & 0o777


def test_a_second_up_is_the_same_stack(stack):
    before = stack.do("status")
    after = stack.do("up", "--detach")
    assert after["pid"] == before["pid"]
    assert after["links"] == before["links"]


def test_a_part_that_is_killed_comes_back_at_the_same_address(stack):
    links = stack.do("status")["links"]

    def back(name, restarts):
        status = stack.ask("status")
        parts = {part["name"]: part for part in status.json["parts"]}
        return status.code == 0 and parts[name]["restarts"] > restarts

    for names in (["database"], ["prefect", "mlflow", "web"], ["forkserver", "worker"]):
        before = stack.parts()
        for name in names:
            kill(before[name]["pid"])
        for name in names:
            restarted = functools.partial(back, name, before[name]["restarts"])
            wait_for(restarted, 60, f"{name} to come back")
    assert stack.do("status")["links"] == links
    answer = stack.ask("run", "train", "--watch", *flags("steps", {}))
    assert answer.code == 0, answer.out + answer.err


def _up(home):
    """Have a stack in the foreground, with a script that ignores SIGTERM."""
    process = subprocess.Popen(
        [MODELYARD, "up", "--json"], env=home.env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert '"ready": true' in process.stdout.readline()
    run = home.start("stubborn")
    log = home.home / "runs" / run / "train.log"
    wait_for(lambda: log.exists() and "pids" in log.read_text(), 30, "the script")
    return process


def test_in_the_foreground_of_a_terminal_it_shows_its_links_until_it_is_ended(bare_home):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([MODELYARD, "up"], env=bare_home.env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"Ctrl-C ends it." not in shown:
        ready, _, _ = select.select([ours], [], [], 120)
        assert ready, shown
        shown += os.read(ours, 4096)
    assert b"prefect  http://127.0.0.1:" in shown
    draining = threading.Thread(target=_drain, args=(ours,), daemon=True)
    draining.start()
    _assert_it_ends(bare_home, process, signal.SIGINT)


def _drain(terminal):
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


def _assert_it_ends(home, process, signum):
    process.send_signal(signum)
    process.wait(60)
    wait_for(lambda: not home.processes(), 30, f"no process after {signum}")
    assert home.ask("status").code == 1


def test_call_without_a_stack_has_a_private_one_that_ends(bare_home):
    answer = bare_home.ask("call", "train", *flags("steps", {"name": "alone"}))
    assert answer.code == 0, answer.err
    assert answer.json["state"] == "COMPLETE"
    wait_for(lambda: not bare_home.processes(), 60, "the private stack to end")
    assert bare_home.ask("status").code == 1


@pytest.mark.soak
def test_a_lasting_stack_shows_what_a_private_one_made(bare_home):
    bare_home.ask("call", "train", *flags("steps", {"name": "alone"}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        bare_home.extra["MODELYARD_PREFECT_PORT"] = str(taken.getsockname()[1])
        try:
            process = _up(bare_home)
        finally:
            del bare_home.extra["MODELYARD_PREFECT_PORT"]
    assert "alone" in [model["name"] for model in bare_home.do("model", "list")]
    _assert_it_ends(bare_home, process, signal.SIGINT)


@pytest.mark.soak
def test_killed_it_leaves_no_process(bare_home):
    _assert_it_ends(bare_home, _up(bare_home), signal.SIGKILL)
