from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.workloads import installer
from infra.workloads.environment_spec import BaseEnvironment, EnvironmentSpec, PipInstall
from infra.workloads.exit_status import ExitStatus


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """uv, beside the interpreter, where pip has no settings of its own."""
    program = tmp_path / "bin" / "uv"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(installer, "_pip_files", lambda: iter(()))
    return str(program)


def test_uv_where_it_is_there(uv: str) -> None:
    install = PipInstall(
        ("a==1",),
        (f"--{'index'}-url", "https://x/simple", f"--{'trusted'}-host", "x", "--pre"),
    )
    command = installer.command(Path("/e"), BaseEnvironment.BARE, install)

    assert command[:5] == [uv, "pip", "install", "--python", "/e/bin/python3"]
    rest = ["https://x/simple", "--allow-insecure-host", "x", "--prerelease", "allow", "a==1"]
    assert command[-6:] == rest


@pytest.mark.usefixtures("uv")
def test_pip_where_other_packages_are_visible() -> None:
    command = installer.command(Path("/e"), BaseEnvironment.MODELYARD, PipInstall(("a",)))

    assert command[:4] == ["/e/bin/python3", "-m", "pip", "install"]


@pytest.mark.parametrize("name", ["INDEX_URL", "NO_INDEX", "CONFIG_FILE"])
@pytest.mark.usefixtures("uv")
def test_pip_where_it_has_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"PIP_{name}", "x")
    command = installer.command(Path("/e"), BaseEnvironment.BARE, PipInstall(("a",), ("--pre",)))

    assert command[:4] == ["/e/bin/python3", "-m", "pip", "install"]
    assert command[-2:] == ["--pre", "a"]


def test_a_file_is_installed_as_it_is_flattened(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.txt").write_text("-e ../package[x] ; extra\nnumpy\n")
    (tmp_path / "limits.txt").write_text("numpy<9\n")
    file = tmp_path / "all.txt"
    file.write_text("-r more/other.txt\n-c limits.txt\n-e git+https://x\n")
    environment = tmp_path / "environment"
    environment.mkdir()

    command = installer.command(
        environment, BaseEnvironment.MODELYARD, PipInstall(("a",), file=file)
    )

    assert command[-3:] == ["a", "-r", str(environment / "requirements.txt")]
    assert (environment / "requirements.txt").read_text().splitlines() == [
        "../package[x] ; extra", "numpy", f"-c {tmp_path / 'limits.txt'}", "-e git+https://x",
    ]  # fmt: skip


@pytest.mark.parametrize("said", ["", "Downloading numpy (9 MiB)"])
def test_a_silent_installation_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    now = [0.0]
    monkeypatch.setattr(installer.time, "monotonic", lambda: now[0])

    def run(*_: object, on_line: Any, stop_requested: Any, **__: object) -> ExitStatus:
        for at in (4.0, 9.0, 11.0, 15.0, 24.0):
            now[0] = at
            if at == 9.0:
                on_line(0, said)
            assert stop_requested() is False
        return ExitStatus(0)

    monkeypatch.setattr(installer.process_group, "run", run)
    lines: list[str] = []
    spec = EnvironmentSpec((PipInstall(("numpy",)),))
    installer.install(tmp_path, spec, PipInstall(("numpy",)), lines.append, lambda: False)

    assert lines == ["Installing numpy", *([said] if said else []), *(
        ["Still installing after 24 s"] if said
        else ["Still installing after 11 s", "Still installing after 24 s"]
    )]  # fmt: skip
