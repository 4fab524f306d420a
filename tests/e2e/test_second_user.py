"""Two users of one machine, each with a stack."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import ALGORITHMS, MODELYARD

_USER = pwd.getpwnam("nobody").pw_uid  # PostgreSQL wants one that has a name
_MAY = "dac_read_search"  # the checkout and its interpreter, which may lie in a closed folder

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("setpriv") is None,
        reason="only root, with setpriv, becomes another user",
    ),
]


class SecondUser:
    """Commands of another user, whose temporary folder is the one that everybody shares."""

    def __init__(self, home: Path, shared: Path) -> None:
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(shared),
            "MODELYARD_PREFECT_PORT": "0",
            "MODELYARD_MLFLOW_PORT": "0",
            "MODELYARD_WEB_PORT": "0",
        }
        self._home = home

    def do(self, *arguments: str) -> Any:
        done = subprocess.run(
            ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups",
             f"--inh-caps=+{_MAY}", f"--ambient-caps=+{_MAY}", MODELYARD, *arguments, "--json"],
            env=self._env, cwd=self._home, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout} {done.stderr}"
        return json.loads(done.stdout)


@pytest.fixture
def second_user() -> Iterator[SecondUser]:
    place = Path(tempfile.mkdtemp(prefix="my-", dir="/tmp"))
    place.chmod(0o755)
    home, shared = place / "home", place / "tmp"
    home.mkdir()
    os.chown(home, _USER, _USER)
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "runner_storage").mkdir()  # as the first user's Prefect makes it
    user = SecondUser(home, shared)
    try:
        yield user
    finally:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            user.do("down")
        shutil.rmtree(place)


def test_a_second_user_has_a_worker_and_a_home_of_their_own(second_user: SecondUser) -> None:
    status = second_user.do("up", "--detach")
    assert {part["state"] for part in status["parts"]} == {"ready", "done"}

    algorithm = f"algorithm={json.dumps({'uri': str(ALGORITHMS), 'entry_point': 'trial.py'})}"
    run = second_user.do("run", "train", "-p", algorithm, "--watch")

    assert run["state"] == "COMPLETE"
    assert second_user.do("down")["was_running"]
