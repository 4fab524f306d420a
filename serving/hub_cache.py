"""What servers of models have downloaded from Hugging Face's hub, kept for the next run.

The folder is the servers' ``HF_HOME``, in which the hub's client has a folder for each repository
(``hub/models--ORG--NAME``). Runs share a lock while they use any, because a server may read others
than the one it is started for; the worker removes old ones while no run has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

DAYS = 30.0
MOST = 8
_LOCK = "modelyard.lock"
_REPOSITORIES = "hub"
_LOCKS = ".locks"  # of the hub's client, a folder for each repository


@contextlib.contextmanager
def using(folder: Path, model_id: str = "") -> Iterator[None]:
    """Use the downloads: nothing is removed for the time.

    Args:
        folder: The folder; it is made when needed.
        model_id: Id of the model that is used, which counts as used until the end; "" for none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield
        finally:
            if model_id:
                with contextlib.suppress(OSError):  # not downloaded
                    os.utime(folder / _REPOSITORIES / f"models--{model_id.replace('/', '--')}")


def prune(folder: Path, *, most: int = MOST, days: float = DAYS) -> list[str]:
    """Remove repositories that were not used for long, unless a run uses any.

    Args:
        folder: The folder, which need not exist.
        most: How many are kept.
        days: How long one is kept after its last use.

    Returns:
        The names of the folders that were removed.
    """
    if not folder.is_dir():
        return []
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        used = {one: one.stat().st_mtime for one in (folder / _REPOSITORIES).glob("*--*/")}
        newest_first = sorted(used, key=lambda one: -used[one])
        oldest = time.time() - days * 86400
        removed = [
            one for at, one in enumerate(newest_first) if at >= most or used[one] < oldest
        ]  # fmt: skip
        for one in removed:
            shutil.rmtree(one, ignore_errors=True)
            shutil.rmtree(one.with_name(_LOCKS) / one.name, ignore_errors=True)
        return sorted(one.name for one in removed)
