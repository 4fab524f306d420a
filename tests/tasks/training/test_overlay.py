from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.workloads.environments import EnvironmentCache
from tasks.training import overlay
from tests.infra.workloads import packages

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


def never() -> bool:
    return False


def test_without_requirements_it_is_our_own_interpreter(tmp_path: Path) -> None:
    overlays = tmp_path / "overlays"

    with overlay.using(tmp_path / "requirements.txt", overlays, print, never) as python:
        assert python == overlay.Interpreter(sys.executable)
    assert not overlays.exists()


def test_requirements_shadow_ours_and_stay_while_they_are_used(tmp_path: Path) -> None:
    wheel = packages.wheel(tmp_path / "source", "sample", "ANSWER = 42")
    requirements = tmp_path / "source" / "requirements.txt"
    requirements.write_text(f"./{wheel.name}\n")
    overlays = tmp_path / "overlays"
    log: list[str] = []

    with overlay.using(requirements, overlays, log.append, never) as python:
        EnvironmentCache(overlays, most=0).prune()
        answer = subprocess.run(
            [python.path, "-c", "import sample, numpy; print(sample.ANSWER)"],
            capture_output=True, text=True, check=True, cwd="/", pass_fds=python.keep,
        ).stdout  # fmt: skip

    assert answer == "42\n"
    assert python.path.startswith(str(overlays))
    assert log[0] == "Installing requirements.txt"


def test_requirements_that_cannot_be_installed(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("no-such-thing-anywhere==1.0")

    with (
        pytest.raises(BadInputError) as raised,
        overlay.using(requirements, tmp_path / "overlays", print, never),
    ):
        pass

    assert raised.value.code == "RequirementsNotInstallable"
    assert raised.value.message.startswith("requirements.txt cannot be installed:\n")
    assert "no-such-thing-anywhere" in raised.value.message
