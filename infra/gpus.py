"""The GPUs of this machine, and who uses which.

A run holds a file lock for each GPU that it is pinned to. The kernel lets go of it when the last
process that has the lock open is gone: the lock is handed to the script's leash as well, so a GPU
is not free while a script whose run was killed still ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pynvml

from infra.errors import BadInputError, StackError
from infra.settings import Settings

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_NONE = "none"
_POLL_SECONDS = 0.5


def devices(settings: Settings, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names of the GPUs that runs here may use, as ``CUDA_VISIBLE_DEVICES`` takes them.

    They are what ``MODELYARD_GPUS`` lists, else what this process's own ``CUDA_VISIBLE_DEVICES``
    lists, else all that NVIDIA's driver knows.
    """
    listed = settings.gpus or environment.get(_VISIBLE)
    if listed is not None:
        named = tuple(name.strip() for name in listed.split(",") if name.strip())
        return () if named in {(_NONE,), ("-1",), ("NoDevFiles",)} else named
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(str(number) for number in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()


def check(count: int, settings: Settings, *, allow_cpu: bool) -> None:
    """Refuse a run that needs more GPUs than there are, whoever uses them now.

    Raises:
        BadInputError: With the code ``GpuMissing``.
    """
    found = len(devices(settings))
    if count > found and not allow_cpu:
        raise BadInputError(
            f"The run needs {count} GPU{'s' if count > 1 else ''}, and this machine has {found}.",
            "Choose an instance type with fewer (cpu.small has none), or allow the run to go "
            "without: resources.allow_cpu=true.",
            code="GpuMissing",
        )


@dataclass(frozen=True)
class Lease:
    """GPUs that are a run's own for the while.

    Attributes:
        names: As ``CUDA_VISIBLE_DEVICES`` takes them.
        locks: Open files that hold them; whoever inherits them holds them too.
    """

    names: tuple[str, ...]
    locks: tuple[IO[str], ...]


def folder() -> Path:
    """Where this user's locks are: one place for all stacks of the machine.

    Raises:
        StackError: If somebody else has made it.
    """
    path = Path(tempfile.gettempdir()) / f"modelyard-{os.getuid()}-gpus"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid != os.getuid():
        raise StackError(f"{path} belongs to somebody else.", "Remove it.")
    return path


@contextlib.contextmanager
def lease(
    available: tuple[str, ...],
    count: int,
    *,
    holder: str,
    shared: bool,
    waiting: Callable[[list[str]], object],
    give_up: Callable[[], bool],
) -> Iterator[Lease | None]:
    """Hold ``count`` of the ``available`` GPUs, waiting in a queue until they are free.

    All are taken at once or none, and whoever waits first is served first, so neither can two
    runs wait for each other nor does a run that needs many wait for ever.

    Args:
        available: Names of the GPUs; at least ``count``.
        count: How many are needed.
        holder: Who holds them, for whoever waits.
        shared: Whether other runs that also ask for it may use the same GPUs meanwhile.
        waiting: Told who holds what is waited for, as often as that changes.
        give_up: Asked a few times a second whether to stop waiting; the lease is None then.
    """
    if count == 0:
        yield Lease((), ())
        return
    with contextlib.ExitStack() as held:
        with (folder() / "queue.lock").open("w") as queue:
            found = _wait(queue, available, count, shared, waiting, give_up)
        if found is None:
            yield None
            return
        for file in found.values():
            held.enter_context(file)
            file.seek(0)
            file.truncate()
            file.write(holder)
            file.flush()
        yield Lease(tuple(found), tuple(found.values()))


def _wait(
    queue: IO[str],
    available: tuple[str, ...],
    count: int,
    shared: bool,
    waiting: Callable[[list[str]], object],
    give_up: Callable[[], bool],
) -> dict[str, IO[str]] | None:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    first_in_queue = False
    told: list[str] = []
    while not give_up():
        first_in_queue = first_in_queue or _try_lock(queue, fcntl.LOCK_EX)
        if first_in_queue:
            found = _try(available, count, kind)
            if found:
                return found
        holders = _holders(available)
        if holders != told:
            told = holders
            waiting(holders)
        time.sleep(_POLL_SECONDS)
    return None


def _path(name: str) -> Path:
    return folder() / f"{name.replace('/', '_')}.lock"


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try(available: tuple[str, ...], count: int, kind: int) -> dict[str, IO[str]] | None:
    found: dict[str, IO[str]] = {}
    for name in available:
        file: IO[str] = _path(name).open("a+")
        if _try_lock(file, kind):
            found[name] = file
        else:
            file.close()
        if len(found) == count:
            return found
    for file in found.values():
        file.close()
    return None


def _holders(available: tuple[str, ...]) -> list[str]:
    """Who holds which of the GPUs, as sentences for people."""
    return [
        f"{name} by {path.read_text() or 'somebody'}"
        for name in available
        if (path := _path(name)).exists() and not _free(path)
    ]


def _free(path: Path) -> bool:
    with path.open() as file:
        return _try_lock(file, fcntl.LOCK_EX)
