"""Cache of Python environments: created once per specification, shared, pruned.

An environment is not written to once it is made. Making one is atomic: it counts only when it is
marked complete, it is made under a lock that the kernel releases when its holder dies, and what
is found without the mark is removed. Users share the lock, so that none in use is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from packaging.requirements import InvalidRequirement, Requirement

from infra.storage import is_disk_full
from infra.workloads import environment_layout as layout
from infra.workloads import installer
from infra.workloads.environment_spec import BaseEnvironment, EnvironmentSpec, PipInstall
from infra.workloads.installer import InstallCancelledError

MOST = 24
DAYS = 30.0
_READY = "modelyard-ready"
_OVERLAYS = "jobs"
_POLL_SECONDS = 0.05
_YOUNG_SECONDS = 60.0


@dataclass(frozen=True)
class Environment:
    """A Python environment in use: it is not pruned while its lock is open.

    Attributes:
        folder: Its folder.
        lock: An open file; a process that inherits it keeps the environment as well.
    """

    folder: Path
    lock: IO[str]

    @property
    def programs(self) -> Path:
        """Folder of its programs."""
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.programs / "python3"

    @property
    def packages(self) -> Path:
        """Folder of its packages."""
        return self.folder / layout.LIBRARY


class EnvironmentCache:
    """Cache of environments below a folder, safe for threads and processes."""

    def __init__(self, root: Path, *, most: int = MOST, days: float = DAYS) -> None:
        """Keep environments below ``root``.

        Args:
            root: The folder; it is made when needed.
            most: How many unused ones are kept.
            days: How long an unused one is kept.
        """
        self.root = root
        self._most = most
        self._days = days
        self._pruned = False

    @contextlib.contextmanager
    def using(
        self,
        spec: EnvironmentSpec,
        log: Callable[[str], object],
        stop_requested: Callable[[], bool],
    ) -> Iterator[Environment]:
        """Use the environment of ``spec``; create it if it does not exist.

        Args:
            spec: What it contains.
            log: Receives progress lines.
            stop_requested: Polled a few times a second; true cancels waiting and making.

        Raises:
            BadInputError: ``RequirementsNotInstallable`` or ``PythonVersionMismatch``; nothing
                is left then.
            DiskFullError: If it does not fit; likewise.
            InstallCancelledError: If it was cancelled; likewise.
        """
        spec.check_python()
        folder = self.root / spec.key()
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._hold(folder, spec, log, stop_requested) as lock:
            if not self._pruned:
                self._pruned = True
                self.prune()
            with contextlib.suppress(OSError):
                os.utime(folder / _READY)
            yield Environment(folder, lock)

    @contextlib.contextmanager
    def overlay(self, environment: Environment) -> Iterator[Environment]:
        """Create a private environment that sees another, and remove it afterwards."""
        overlays = self.root / _OVERLAYS
        overlays.mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=overlays))
        with _lock(_lock_path(folder), fcntl.LOCK_EX, lambda: False) as lock:
            try:
                layout.make_overlay(folder, environment.packages)
                yield Environment(folder, lock)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                _lock_path(folder).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove unused environments beyond the limits, and leftovers of dead processes."""
        ready = {folder: _mtime(folder / _READY) for folder in self._complete()}
        newest_first = sorted(ready, key=lambda folder: -ready[folder])
        oldest = time.time() - self._days * 86400
        for number, folder in enumerate(newest_first):
            if number >= self._most or ready[folder] < oldest:
                _remove_unless_locked(folder)
        unfinished = {*self.root.glob("*/")} - ready.keys() - {self.root / _OVERLAYS}
        for folder in (*unfinished, *(self.root / _OVERLAYS).glob("*/")):
            # A folder exists for a moment before its lock does.
            if _mtime(folder) < time.time() - _YOUNG_SECONDS:
                _remove_unless_locked(folder)

    def _hold(
        self,
        folder: Path,
        spec: EnvironmentSpec,
        log: Callable[[str], object],
        stop_requested: Callable[[], bool],
    ) -> IO[str]:
        """Lock the complete environment for use."""
        while True:
            lock = _lock(
                _lock_path(folder), fcntl.LOCK_SH, stop_requested,
                on_wait=lambda: log("Waiting for an environment that another process makes."),
            )  # fmt: skip
            if (folder / _READY).exists():
                return lock
            lock.close()
            with _lock(_lock_path(folder), fcntl.LOCK_EX, stop_requested):
                if not (folder / _READY).exists():
                    self._make(folder, spec, log, stop_requested)
                    self._pruned = False

    def _make(
        self,
        folder: Path,
        spec: EnvironmentSpec,
        log: Callable[[str], object],
        stop_requested: Callable[[], bool],
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        try:
            if spec.base is BaseEnvironment.MODELYARD:
                layout.make_overlay(folder, layout.OWN_PACKAGES)
            else:
                layout.make_bare(folder)
            for install in spec.installs:
                left = self._copy_known(folder, spec, install)
                if left.requirements or left.file:
                    installer.install(folder, spec, left, log, stop_requested)
            (folder / _READY).touch()
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if is_disk_full(error):
                raise installer.disk_full(folder, spec) from error
            raise
        if spec.installs:
            log(f"An environment was made in {time.monotonic() - began:.1f} s.")

    def _copy_known(self, folder: Path, spec: EnvironmentSpec, install: PipInstall) -> PipInstall:
        """Copy exact versions that another environment has; the rest is left to install."""
        left = []
        for text in install.requirements:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:  # an address or a path
                left.append(text)
                continue
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            copies = spec.base is BaseEnvironment.BARE and install.without_dependencies
            if not (copies and _is_exact(requirement) and self._copy(requirement, folder)):
                left.append(text)
        return PipInstall(tuple(left), install.options, install.file)

    def _copy(self, requirement: Requirement, folder: Path) -> bool:
        """Copy a package from Modelyard's, or from an environment that has it."""
        if layout.copy_package(requirement, layout.OWN_PACKAGES, folder):
            return True
        for other in self._complete():
            if not _lock_path(other).exists():
                continue
            with _lock_path(other).open("a+") as lock:
                # Held while it is read, so that it is not removed.
                held = _try_lock(lock, fcntl.LOCK_SH) and (other / _READY).exists()
                if held and layout.copy_package(requirement, other / layout.LIBRARY, folder):
                    return True
        return False

    def _complete(self) -> Sequence[Path]:
        return [mark.parent for mark in self.root.glob(f"*/{_READY}")]


def _is_exact(requirement: Requirement) -> bool:
    operators = [one.operator for one in requirement.specifier]
    return operators == ["=="] and not requirement.extras and not requirement.url


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _lock(
    path: Path,
    kind: int,
    stop_requested: Callable[[], bool],
    on_wait: Callable[[], object] = lambda: None,
) -> IO[str]:
    """Lock the file at ``path``; one that was replaced while it was waited for does not count."""
    waited = False
    while True:
        file = path.open("a+")
        try:
            while not _try_lock(file, kind):
                if not waited:
                    waited = True
                    on_wait()
                if stop_requested():
                    raise InstallCancelledError
                time.sleep(_POLL_SECONDS)
            if path.exists() and path.samefile(f"/dev/fd/{file.fileno()}"):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _mtime(path: Path) -> float:
    """Time of the last change; 0 if the path is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove_unless_locked(folder: Path) -> None:
    with _lock_path(folder).open("a+") as lock:
        if _try_lock(lock, fcntl.LOCK_EX):
            (folder / _READY).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            _lock_path(folder).unlink(missing_ok=True)
