"""Allocation of this machine's GPUs by file locks.

A run holds a file lock for each of its GPUs. The kernel releases it when the last process that
has the lock open is gone. The script's leash inherits the lock, so a GPU is not free before the
script of a killed run has ended.
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
    """List the GPUs that runs on this machine may use, as in ``CUDA_VISIBLE_DEVICES``.

    They are those of ``MODELYARD_GPUS``, else of this process's own ``CUDA_VISIBLE_DEVICES``, else
    all that NVIDIA's driver reports.
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
    """Refuse a run that needs more GPUs than there are, whether or not they are in use.

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
class GpuLease:
    """GPUs that a run holds.

    Attributes:
        names: Their names, as in ``CUDA_VISIBLE_DEVICES``.
        locks: Locked open files; processes that inherit them hold the GPUs, too.
    """

    names: tuple[str, ...]
    locks: tuple[IO[str], ...]


def folder() -> Path:
    """Return the folder of this user's locks, common to all stacks of the machine.

    Raises:
        StackError: If it belongs to another user.
    """
    path = Path(tempfile.gettempdir()) / f"modelyard-{os.getuid()}-gpus"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid != os.getuid():
        raise StackError(f"{path} belongs to another user.", "Remove it.")
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
) -> Iterator[GpuLease | None]:
    """Hold ``count`` of the ``available`` GPUs, waiting in a queue until they are free.

    All are taken at once or none, in the order of arrival. So two runs cannot deadlock, and a
    run that needs many does not starve.

    Args:
        available: Names of the GPUs; at least ``count``.
        count: The number of GPUs needed.
        holder: Description of the holder, shown to waiting runs.
        shared: Whether other runs that also share may use the same GPUs at the same time.
        waiting: Called with the holders of the GPUs, whenever they change.
        give_up: Polled a few times a second; true stops waiting, and the lease is None.
    """
    if count == 0:
        yield GpuLease((), ())
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
        yield GpuLease(tuple(found), tuple(found.values()))


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
    reported: list[str] = []
    while not give_up():
        first_in_queue = first_in_queue or _try_lock(queue, fcntl.LOCK_EX)
        if first_in_queue:
            found = _try_lease(available, count, kind)
            if found:
                return found
        holders = _holders(available)
        if holders != reported:
            reported = holders
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


def _try_lease(available: tuple[str, ...], count: int, kind: int) -> dict[str, IO[str]] | None:
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
    """Describe who holds which GPU."""
    return [
        f"{name} by {path.read_text() or 'an unknown run'}"
        for name in available
        if (path := _path(name)).exists() and not _is_free(path)
    ]


def _is_free(path: Path) -> bool:
    with path.open() as file:
        return _try_lock(file, fcntl.LOCK_EX)
