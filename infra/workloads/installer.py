"""Installation of requirements into an environment: with uv where it fits, else pip."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from infra.connection import user_environment
from infra.errors import BadInputError, DiskFullError
from infra.masking import mask
from infra.workloads import process_group
from infra.workloads.environment_spec import BaseEnvironment, EnvironmentSpec, PipInstall
from infra.workloads.exit_status import ExitCause
from infra.workloads.requirements_file import flatten

_GRACE_SECONDS = 3.0
_TAIL_LINES = 12
_SILENT_SECONDS = 10.0
_UV_SPELLING = {
    "trusted-host": ("--allow-insecure-host",),
    "pre": ("--prerelease", "allow"),
    "U": ("--upgrade",),
}
_NOISE = ("WARNING: Location", "[notice]")
_PROGRESS = re.compile(
    r"(?:Collecting|Downloading|Building|Built|Resolved|Prepared|Installing collected|Installed) "
)
_PIP_SETTINGS = ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "CONFIG_FILE", "CERT", "NO_INDEX")


class InstallCancelledError(Exception):
    """The caller cancelled before the environment was ready."""


class _InstallProgress:
    """Logs the progress of an installation, also where the installer is silent for long."""

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._began = self._last = time.monotonic()

    def log(self, line: str) -> None:
        """Log a line of the installer's."""
        self._last = time.monotonic()
        self._log(line)

    def polling(self, stop_requested: Callable[[], bool]) -> Callable[[], bool]:
        """Wrap what is polled meanwhile: log how long it has taken, if silent for long."""

        def poll() -> bool:
            now = time.monotonic()
            if now - self._last >= _SILENT_SECONDS:
                self.log(f"Still installing after {now - self._began:.0f} s")
            return stop_requested()

        return poll


def install(
    folder: Path,
    spec: EnvironmentSpec,
    one: PipInstall,
    log: Callable[[str], object],
    stop_requested: Callable[[], bool],
) -> None:
    """Install requirements into an environment.

    Args:
        folder: The environment.
        spec: Its specification, for the base and for messages.
        one: What to install.
        log: Receives progress lines.
        stop_requested: Polled a few times a second; true cancels.

    Raises:
        BadInputError: With the code ``RequirementsNotInstallable``.
        DiskFullError: If they do not fit.
        InstallCancelledError: If it was cancelled.
    """
    label = spec.label[:1].lower() + spec.label[1:]
    names = ", ".join(mask(text) for text in one.requirements) or label
    log(f"Installing {names}")
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    full = False

    progress = _InstallProgress(log)

    def on_line(_: int, line: str) -> None:
        nonlocal full
        if not line.strip() or line.lstrip().startswith(_NOISE):
            return
        tail.append(mask(line))
        full = full or "No space left on device" in line
        if _PROGRESS.match(line.lstrip()):
            progress.log(tail[-1].strip())

    ended = process_group.run(
        [process_group.ProcessSpec(command(folder, spec.base, one), _pip_environment())],
        cwd=one.file.parent if one.file else folder,
        log=None,
        on_line=on_line,
        deadline=None,
        stop_requested=progress.polling(stop_requested),
        grace=_GRACE_SECONDS,
    )
    if ended.cause is not ExitCause.EXITED:
        raise InstallCancelledError
    if ended.code == 0:
        return
    if full:
        raise disk_full(folder, spec)
    listed = f": {names}." if one.requirements else ":"
    said = "\n".join(tail).replace(str(_flat(folder)), "requirements.txt")
    raise BadInputError(
        f"{spec.label} cannot be installed{listed}\n{said}",
        spec.hint,
        code="RequirementsNotInstallable",
    )


def disk_full(folder: Path, spec: EnvironmentSpec) -> DiskFullError:
    """Build the error for an environment that does not fit on the disk."""
    return DiskFullError(
        f"The disk of {folder.parent} is full: {spec.label} cannot be installed.",
        "Free disk space, and retry.",
    )


def command(folder: Path, base: BaseEnvironment, one: PipInstall) -> list[str]:
    """Build the command line that installs ``one``.

    uv sees only what is in an environment itself, so one on Modelyard's packages is pip's.
    """
    requirements = list(one.requirements)
    if one.file is not None:
        flat = _flat(folder)
        flat.write_text("".join(f"{line}\n" for line in flatten(one.file)))
        requirements += ["-r", str(flat)]
    python = str(folder / "bin" / "python3")
    uv = _uv() if base is BaseEnvironment.BARE else None
    if uv is None:
        return [python, "-m", "pip", "install", "--no-input", "--progress-bar", "off",
                *one.options, *requirements]  # fmt: skip
    options: list[str] = []
    for option in one.options:
        options += _UV_SPELLING.get(option.lstrip("-"), (option,))
    return [uv, "pip", "install", "--python", python, "--index-strategy", "unsafe-best-match",
            *options, *requirements]  # fmt: skip


def _flat(folder: Path) -> Path:
    return folder / "requirements.txt"


def _pip_environment() -> dict[str, str]:
    inherited = {
        name: value
        for name, value in user_environment().items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    quiet = {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
    return {**inherited, **quiet}


def _uv() -> str | None:
    """Find uv, unless pip has settings, which uv does not read."""
    if any(f"PIP_{name}" in os.environ for name in _PIP_SETTINGS) or any(_pip_files()):
        return None
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _pip_files() -> Iterator[Path]:
    own = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    candidates: Sequence[Path] = (
        Path("/etc/pip.conf"), own / "pip/pip.conf", Path.home() / ".pip/pip.conf",
        Path(sys.prefix) / "pip.conf",
    )  # fmt: skip
    return (path for path in candidates if path.exists())
