"""Python environments for components: made once for each set of requirements, and never ours.

An environment is shared and is not written to once it is made. Each job sees it through an
overlay of its own, an environment that is almost empty and made in a moment, so that whatever a
job installs while it runs is its own and is gone with it.

Making one is atomic: it counts only when it is marked complete, it is made under a lock that the
kernel lets go of when its holder dies, and what is found there without the mark is removed.
Whoever uses one shares its lock, so that none is removed that is in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

from packaging.requirements import InvalidRequirement, Requirement

from infra import script
from infra.connection import user_environment
from infra.errors import BadInputError, DiskFullError
from infra.masking import mask
from pipelines.bootstrap import Install

MOST = 24
DAYS = 30.0
_READY = "modelyard-ready"
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 3.0
_YOUNG_SECONDS = 60.0
_JOBS = "jobs"
_PIP = "pip"
_UV_SPELLING = {
    "trusted-host": ("--allow-insecure-host",),
    "pre": ("--prerelease", "allow"),
    "U": ("--upgrade",),
}
_NOISE = ("WARNING: Location", "[notice]")

# The version is what differs between interpreters of one machine, and where it lies.
_BASE = str(getattr(sys, "_base_executable", sys.executable))
_LIBRARY = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


class StoppedError(Exception):
    """The job was cancelled while its environment was being made."""


@dataclass(frozen=True)
class Environment:
    """An environment that is held, so that it stays.

    Attributes:
        folder: Its folder.
        lock: An open file; whoever inherits it holds the environment as well.
    """

    folder: Path
    lock: IO[str]

    @property
    def programs(self) -> Path:
        """The folder of its programs."""
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.programs / "python3"

    @property
    def packages(self) -> Path:
        """The folder of its packages."""
        return self.folder / _LIBRARY


class Environments:
    """The environments below a folder. Several threads and processes may use it at once."""

    def __init__(self, root: Path, *, most: int = MOST, days: float = DAYS) -> None:
        """Keep environments below ``root``.

        Args:
            root: The folder; it is made.
            most: How many are kept that nobody uses.
            days: How long one is kept that nobody uses.
        """
        self.root = root
        self._most = most
        self._days = days
        self._pruned = False

    @contextlib.contextmanager
    def using(
        self,
        installs: Sequence[Install],
        log: Callable[[str], None],
        cancelled: threading.Event,
    ) -> Iterator[Environment]:
        """Hold the environment with what ``installs`` say, which is made if it is not there.

        Args:
            installs: Calls of pip, in order.
            log: Told what is being done, and what pip says.
            cancelled: When set, nothing is waited for any more.

        Raises:
            BadInputError: With the code ``RequirementsNotInstallable``; nothing is left then.
            DiskFullError: If they do not fit.
            StoppedError: If it was cancelled.
        """
        folder = self.root / _key(installs)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._hold(folder, installs, log, cancelled) as lock:
            if not self._pruned:
                self._pruned = True
                self.prune()
            with contextlib.suppress(OSError):
                os.utime(folder / _READY)
            yield Environment(folder, lock)

    def _hold(
        self,
        folder: Path,
        installs: Sequence[Install],
        log: Callable[[str], None],
        cancelled: threading.Event,
    ) -> IO[str]:
        """The environment's lock, shared, when it is complete."""
        while True:
            lock = _take(_lock_of(folder), fcntl.LOCK_SH, cancelled)
            if (folder / _READY).exists():
                return lock
            lock.close()
            with _take(_lock_of(folder), fcntl.LOCK_EX, cancelled):
                if not (folder / _READY).exists():
                    self._make(folder, installs, log, cancelled)
                    self._pruned = False

    def _make(
        self,
        folder: Path,
        installs: Sequence[Install],
        log: Callable[[str], None],
        cancelled: threading.Event,
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        try:
            _bare(folder)
            for install in installs:
                _install(folder, install, self._ready(), log, cancelled)
            (folder / _READY).touch()
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if "No space left" in str(error):
                raise _full(folder) from error
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if installs:
            log(f"An environment was made in {time.monotonic() - began:.1f} s.")

    def _ready(self) -> list[Path]:
        """The environments that are complete."""
        return [mark.parent for mark in self.root.glob(f"*/{_READY}")]

    @contextlib.contextmanager
    def overlay(self, environment: Environment) -> Iterator[Environment]:
        """An environment for one job, which sees another and keeps what is installed to itself."""
        jobs = self.root / _JOBS
        jobs.mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=jobs))
        with _take(_lock_of(folder), fcntl.LOCK_EX, threading.Event()) as lock:
            try:
                _overlay(folder, environment)
                yield Environment(folder, lock)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                _lock_of(folder).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what was unused for too long or is too much, and what jobs that died left."""
        ready = {folder: _changed(folder / _READY) for folder in self._ready()}
        newest_first = sorted(ready, key=lambda folder: -ready[folder])
        oldest = time.time() - self._days * 86400
        for number, folder in enumerate(newest_first):
            if number >= self._most or ready[folder] < oldest:
                _remove_unless_held(folder)
        for folder in (self.root / _JOBS).glob("*/"):
            # A folder exists for a moment before its lock does.
            if _changed(folder) < time.time() - _YOUNG_SECONDS:
                _remove_unless_held(folder)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _take(path: Path, kind: int, cancelled: threading.Event) -> IO[str]:
    """Lock a file, which is then still the one at its path."""
    while True:
        file = path.open("a+")
        try:
            while not _try(file, kind):
                if cancelled.wait(_POLL_SECONDS):
                    raise StoppedError
            if path.exists() and path.samefile(f"/dev/fd/{file.fileno()}"):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _changed(path: Path) -> float:
    """When a path was changed; never, if somebody has removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove_unless_held(folder: Path) -> None:
    with _lock_of(folder).open("a+") as lock:
        if _try(lock, fcntl.LOCK_EX):
            (folder / _READY).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            _lock_of(folder).unlink(missing_ok=True)


def _key(installs: Iterable[Install]) -> str:
    steps = [[sorted(one.requirements), list(one.options)] for one in installs]
    return hashlib.sha256(json.dumps([sys.version, _BASE, steps]).encode()).hexdigest()[:24]


def _bare(folder: Path) -> None:
    """An environment with pip and nothing else, as an image of Python has it."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    if not _borrow(Requirement(_PIP), folder, []):
        venv.EnvBuilder(symlinks=True, with_pip=True).create(folder)
    _pip_programs(folder)


def _pip_programs(folder: Path) -> None:
    for name in ("pip", "pip3"):
        program = folder / "bin" / name
        program.unlink(missing_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{folder}/bin/python3" -m pip "$@"\n')
        program.chmod(0o755)


def _overlay(folder: Path, environment: Environment) -> None:
    (folder / "bin").mkdir()
    (folder / _LIBRARY).mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(
        f"home = {Path(_BASE).parent}\ninclude-system-site-packages = false\n"
        f"version = {sys.version.split()[0]}\n"
    )
    for name in ("python", "python3", f"python3.{sys.version_info.minor}"):
        (folder / "bin" / name).symlink_to(_BASE)
    _pip_programs(folder)
    # addsitedir and not a bare path, so that .pth files of packages count as well.
    line = f"import site; site.addsitedir({str(environment.packages)!r})\n"
    (folder / _LIBRARY / "modelyard.pth").write_text(line)


def _borrow(requirement: Requirement, folder: Path, others: Sequence[Path]) -> bool:
    """Copy a package from ours, or from an environment that has it; whether it was found."""
    if _copied(requirement, folder, sysconfig.get_path("purelib")):
        return True
    for other in others:
        if not _lock_of(other).exists():
            continue
        with _lock_of(other).open("a+") as lock:
            # Held meanwhile, or else it could be removed under our hands.
            held = _try(lock, fcntl.LOCK_SH) and (other / _READY).exists()
            if held and _copied(requirement, folder, str(other / _LIBRARY)):
                return True
    return False


def _copied(requirement: Requirement, folder: Path, source: str) -> bool:
    for found in metadata.distributions(name=requirement.name, path=[source]):
        # What came from an address or a path may be something else under the same version.
        direct = found.read_text("direct_url.json")
        if direct or not found.files or not requirement.specifier.contains(found.version, True):
            continue
        for file in found.files:
            origin = Path(str(found.locate_file(file)))
            if file.parts[0] == ".." or file.is_absolute() or not origin.is_file():
                continue
            target = folder / _LIBRARY / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, target)
        return True
    return False


def _needed(install: Install) -> Iterator[tuple[str, Requirement | None]]:
    """The requirements whose markers hold here; None for what is an address or a path."""
    for text in install.requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            yield text, None
        else:
            if requirement.marker is None or requirement.marker.evaluate():
                yield text, requirement


def _exact(requirement: Requirement) -> bool:
    operators = [one.operator for one in requirement.specifier]
    return operators == ["=="] and not requirement.extras and not requirement.url


def _install(
    folder: Path,
    install: Install,
    others: Sequence[Path],
    log: Callable[[str], None],
    cancelled: threading.Event,
) -> None:
    left = [
        text
        for text, requirement in _needed(install)
        if not (
            install.alone
            and requirement is not None
            and _exact(requirement)
            and _borrow(requirement, folder, others)
        )
    ]
    if not left:
        return
    log(f"Installing {mask(', '.join(left))}")
    said: list[str] = []

    def on_line(_: int, line: str) -> None:
        if line.strip() and not line.lstrip().startswith(_NOISE):
            said.append(mask(line))

    ended = script.run(
        [script.Process(_command(folder, install, left), _pip_environment())],
        cwd=folder,
        log=None,
        on_line=on_line,
        deadline=None,
        stop_requested=cancelled.is_set,
        grace=_GRACE_SECONDS,
    )
    if ended.ending is not script.Ending.EXITED:
        raise StoppedError
    if ended.code == 0:
        return
    if any("No space left on device" in line for line in said):
        raise _full(folder)
    tail = "\n".join(said[-12:])
    raise BadInputError(
        f"The packages of the component cannot be installed: {mask(', '.join(left))}.\n{tail}",
        "Mend packages_to_install of the component, or the package index that pip is set to.",
        code="RequirementsNotInstallable",
    )


def _full(folder: Path) -> DiskFullError:
    return DiskFullError(
        f"The disk of {folder.parent} is full: the component's packages do not fit.", "Make room."
    )


def _pip_environment() -> dict[str, str]:
    inherited = {
        name: value
        for name, value in user_environment().items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    return {**inherited, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _command(folder: Path, install: Install, requirements: Sequence[str]) -> list[str]:
    python = str(folder / "bin" / "python3")
    uv = _uv()
    if uv is None:
        return [python, "-m", "pip", "install", "--no-input", "--progress-bar", "off",
                *install.options, *requirements]  # fmt: skip
    options: list[str] = []
    for option in install.options:
        options += _UV_SPELLING.get(option.lstrip("-"), (option,))
    return [uv, "pip", "install", "--python", python, "--index-strategy", "unsafe-best-match",
            *options, *requirements]  # fmt: skip


def _uv() -> str | None:
    """uv, where it would find what pip finds: it does not read pip's own settings."""
    settings = ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "CONFIG_FILE", "CERT", "NO_INDEX")
    if any(f"PIP_{name}" in os.environ for name in settings) or any(_pip_files()):
        return None
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _pip_files() -> Iterator[Path]:
    own = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    candidates = (Path("/etc/pip.conf"), own / "pip/pip.conf", Path.home() / ".pip/pip.conf",
                  Path(sys.prefix) / "pip.conf")  # fmt: skip
    return (path for path in candidates if path.exists())
