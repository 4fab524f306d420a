from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import psutil

from infra.home import Home
from infra.stack import client
from tests.infra.stack.fakes import SLEEP, Supervised, left, part, run
from tests.processes import PATIENCE_SECONDS, eventually, pid_in, runs

_PROCESS = """
import sys
from pathlib import Path
from infra.stack import parts, supervisor
parts.build = lambda *_: [
    parts.Part("server", ["sh", "-c", sys.argv[1]], Path("up").exists, grace=0.2)
]
sys.exit(supervisor.main(["--lasting"]))
"""
_TREE = f"setsid sh -c 'echo $$ > far; exec sleep 600' & echo $$ > near; touch up; {SLEEP}"


def _start_process(home: Home, script: str) -> subprocess.Popen[bytes]:
    ports = {f"MODELYARD_{name}_PORT": "0" for name in ("PREFECT", "MLFLOW", "WEB")}
    env = {**os.environ, **ports}
    return subprocess.Popen([sys.executable, "-c", _PROCESS, script], env=env, cwd=home.root)


def test_a_supervisor_that_is_killed_leaves_nothing(home: Home) -> None:
    process = _start_process(home, _TREE)
    near, far = pid_in(home.root / "near"), pid_in(home.root / "far")

    process.kill()
    process.wait(30)

    eventually(lambda: not runs(near) and not runs(far), "the parts end")
    assert client.status(home) is None


def test_the_next_one_ends_what_a_killed_leash_has_left(
    supervised: Supervised, home: Home
) -> None:
    process = _start_process(home, _TREE)
    far = pid_in(home.root / "far")
    (leash,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGSTOP)
    leash.kill()
    process.kill()
    process.wait(30)
    assert runs(far)

    async def test() -> None:
        async with supervised(part("server")) as stack:
            await (await stack.call()).ask("wait")
            assert not runs(far)

    run(test())


def test_a_process_that_fails_leaves_its_reason(home: Home) -> None:
    process = _start_process(home, "echo no luck; exit 1")

    assert process.wait(PATIENCE_SECONDS) == 1

    assert "no luck" in json.loads((home.root / "error.json").read_text())["message"]


def test_a_process_that_comes_second_is_content(home: Home) -> None:
    first = _start_process(home, _TREE)
    try:
        pid = pid_in(home.root / "near")
        second = _start_process(home, SLEEP)
        assert second.wait(PATIENCE_SECONDS) == 0
        assert runs(pid)
        assert not (home.root / "error.json").exists()
    finally:
        first.terminate()
        assert first.wait(PATIENCE_SECONDS) == 0
    assert left(home) == []
