"""Interpreters of scripts: Modelyard's packages, shadowed by a script's requirements."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.workloads.environment_spec import BaseEnvironment, EnvironmentSpec, PipInstall
from infra.workloads.environments import EnvironmentCache


@dataclass(frozen=True)
class Interpreter:
    """A Python for a script.

    Attributes:
        path: The program.
        keep: Open files that hold its environment; a process that inherits them holds it too.
    """

    path: str
    keep: tuple[int, ...] = ()


@contextlib.contextmanager
def using(
    requirements: Path,
    overlays: Path,
    log: Callable[[str], object],
    stop_requested: Callable[[], bool],
) -> Iterator[Interpreter]:
    """Use an interpreter with ``requirements``; Modelyard's own if the file does not exist.

    Args:
        requirements: A ``requirements.txt``.
        overlays: The folder that caches environments.
        log: Receives progress lines.
        stop_requested: Polled a few times a second; true cancels.

    Raises:
        BadInputError: If they cannot be installed, with the code ``RequirementsNotInstallable``.
        DiskFullError: If they do not fit.
        InstallCancelledError: If it was cancelled.
    """
    if not requirements.is_file():
        yield Interpreter(sys.executable)
        return
    spec = EnvironmentSpec(
        (PipInstall(file=requirements),),
        BaseEnvironment.MODELYARD,
        label="requirements.txt",
        hint="Fix requirements.txt beside the entry point.",
    )
    with EnvironmentCache(overlays).using(spec, log, stop_requested) as environment:
        yield Interpreter(str(environment.python), (environment.lock.fileno(),))
