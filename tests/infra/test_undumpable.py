"""A script of the same user finds no credential of the process that runs it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra import undumpable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a feature of Linux")

_CANARY = "canary-4f9d2b"
_ROOT = Path(__file__).parents[2]
_SNOOPS = _ROOT / "tests/e2e/algorithms/snoops.py"
_PR_CAPBSET_DROP = 24

# What runs a script, as a run's process does, with a credential in its environment and memory.
_OWNER = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from infra import undumpable
from infra.workloads import process_group
if sys.argv[3] == "protected":
    undumpable.protect()
env = {"EM_HP_WORDS": sys.argv[4], "EM_HP_FOLDERS": ""}
ended = process_group.run(
    [process_group.ProcessSpec([sys.executable, "-I", "-S", sys.argv[2]], env)],
    cwd=pathlib.Path("/"), log=None, on_line=lambda _, line: print(line, flush=True),
    deadline=None, stop_requested=lambda: False, grace=1,
)
sys.exit(ended.code)
"""


def _as_in_a_pod() -> None:
    """Have no capability, which the containers of runs have not either."""
    libc = ctypes.CDLL(None)
    number = 0
    while os.getuid() == 0 and libc.prctl(_PR_CAPBSET_DROP, number) == 0:
        number += 1


def _searched(how: str) -> str:
    owner = subprocess.run(
        [sys.executable, "-c", _OWNER, str(_ROOT), str(_SNOOPS), how, _CANARY[::-1]],
        env={"SECRET": _CANARY}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=_as_in_a_pod, timeout=120, check=False,
    )  # fmt: skip
    assert owner.returncode == 0, owner.stdout
    assert "searched" in owner.stdout
    return owner.stdout


def test_a_script_finds_the_credentials_of_an_open_process() -> None:
    found = _searched("open")

    assert "/environ\n" in found
    assert "/mem\n" in found
    assert "attached to its owner" in found


def test_a_script_finds_nothing_of_a_protected_process() -> None:
    assert _searched("protected") == "searched\n"


@pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")
def test_a_program_that_cannot_be_read_is_closed_to_its_user(tmp_path: Path) -> None:
    """What the image does with its first process."""
    user = 65534
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o001)
    cat = shutil.copy(shutil.which("cat") or "", tmp_path / "cat")
    seen = {}
    for mode in (0o755, 0o711):
        Path(cat).chmod(mode)
        with subprocess.Popen(
            [cat], user=user, group=user, extra_groups=[], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={"SECRET": _CANARY}, cwd="/",
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x")
            process.stdin.flush()
            process.stdout.read(1)  # it runs by now
            read = subprocess.run(
                ["cat", f"/proc/{process.pid}/environ"], user=user, group=user, extra_groups=[],
                capture_output=True, cwd="/", check=False,
            )  # fmt: skip
            seen[mode] = _CANARY.encode() in read.stdout
            process.stdin.close()

    assert seen == {0o755: True, 0o711: False}


def test_a_first_process_that_shows_its_environment_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getpid", lambda: 7)
    shown = Path.read_bytes

    monkeypatch.setattr(Path, "read_bytes", lambda _: b"HOME=/\0POD_UID=a\0")
    assert undumpable.is_init_exposed("POD_UID")
    assert not undumpable.is_init_exposed("UID")

    def closed(_: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", closed)
    assert not undumpable.is_init_exposed("POD_UID")
    monkeypatch.setattr(Path, "read_bytes", shown)
