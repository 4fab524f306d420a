"""Volumes of processes, each mounted for one process tree alone.

``mounter.py`` makes the mounts, in namespaces of the process's own; the backend uses this module.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import BadInputError
from infra.workloads.base import CONTAINER_HINT, Workload

_MOUNTER = Path(__file__).with_name("mounter.py")
_PATIENCE_SECONDS = 30.0
_SYSTEM = ("/", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/dev", "/proc", "/sys")
_CLOSED = ("/proc", "/sys", "/dev")


@dataclass(frozen=True)
class Mount:
    """A mount of a workload.

    Attributes:
        path: Mount point, absolute.
        source: Folder of this machine; None for files or memory.
        files: Contents of files, by name, which may only be read.
        memory: Whether it is memory.
        size: Limit of memory in bytes; 0 for none.
    """

    path: str
    source: Path | None = None
    files: Mapping[str, bytes] | None = None
    memory: bool = False
    size: int = 0


def check(workload: Workload, paths: Sequence[str], needed: Sequence[Path]) -> None:
    """Refuse a workload whose mounts a process here cannot have.

    Args:
        workload: The workload.
        paths: Where it wants mounts.
        needed: What it finds on this machine, and cannot do without.

    Raises:
        BadInputError: With the code ``PlatformUnsupported``.
    """
    if not paths:
        return
    points = ", ".join(paths)
    if why := impossible():
        raise _refused(
            f"{workload.name} needs a mount at {points}, which a process cannot have: {why}."
        )
    used = {Path(path) for path in _SYSTEM} | {path.resolve() for path in needed} | {*needed}
    used |= {workload.folder, *workload.inputs, *workload.outputs}
    for path in map(Path, paths):
        hidden = min((one for one in used if one.is_relative_to(path)), default=None)
        if hidden is not None:
            raise _refused(
                f"{workload.name} needs a mount at {path}, which would hide {hidden}, where this "
                "machine has what it runs with."
            )
        if any(path.is_relative_to(closed) for closed in _CLOSED):
            raise _refused(
                f"{workload.name} needs a mount at {path}, where a process can have none."
            )


def _refused(message: str) -> BadInputError:
    return BadInputError(message, CONTAINER_HINT, code="PlatformUnsupported")


@functools.cache
def impossible() -> str:
    """Why this machine gives processes no mounts of their own; "" if it does."""
    if sys.platform != "linux":
        return "only Linux has them"
    probe = [sys.executable, "-I", "-S", str(_MOUNTER), "--probe"]
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        try:
            found = subprocess.run(
                probe, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"finding out failed ({type(error).__name__})"
    if found.returncode == 0:
        return ""
    said = found.stderr.strip().splitlines()
    why = said[-1] if said else f"exit status {found.returncode}"
    return f"this machine gives its users no namespaces of their own ({why})"


@contextlib.contextmanager
def mounted(
    command: Sequence[str], mounts: Sequence[Mount], shared: Sequence[Path]
) -> Iterator[Sequence[str]]:
    """The command line that runs ``command`` with mounts; it counts while this is entered.

    The contents of files are in memory alone, and in no command line.

    Args:
        command: A command line.
        mounts: What it is to find.
        shared: Folders in which it may leave things that are wanted.
    """
    spec = {
        "mounts": [_plain(one) for one in mounts],
        "shared": [str(path) for path in shared],
    }
    descriptor = os.memfd_create("modelyard-mounts")
    with os.fdopen(descriptor, "w") as file:
        json.dump(spec, file)
        file.flush()
        place = f"/proc/{os.getpid()}/fd/{descriptor}"
        yield [sys.executable, "-I", "-S", str(_MOUNTER), place, "--", *command]


def _plain(mount: Mount) -> dict[str, Any]:
    if mount.source is not None:
        return {"path": mount.path, "source": str(mount.source)}
    if mount.files is not None:
        files = mount.files.items()
        held = {name: base64.b64encode(data).decode() for name, data in files}
        return {"path": mount.path, "files": held}
    return {"path": mount.path, "size": mount.size}
