"""TensorBoard's view of runs: their logs side by side, and how long they are kept."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from infra import run_lock
from infra.home import Home
from tasks.training import Workplace
from tuning.event_files import FILES

_SECONDS_PER_DAY = 86400.0


def link(view: Path, runs: Iterable[Mapping[str, object]], home: Home) -> int:
    """Make ``view`` a folder that shows the runs' logs under their names; how many have any.

    It can be called again while TensorBoard reads the folder.

    Args:
        view: The folder; made if missing.
        runs: Runs with their ``id`` and ``name``.
        home: Where their logs are.
    """
    view.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Path] = {}
    for run in runs:
        logs = Workplace(home.runs / str(run["id"])).tensorboard
        if logs.is_dir():
            name = str(run["name"]).replace("/", "_")
            taken = name in wanted or name.startswith(".")
            wanted[f"{name} {str(run['id'])[:8]}" if taken else name] = logs
    for shown in view.iterdir():
        if wanted.get(shown.name) != shown.readlink():
            shown.unlink()
    for name, logs in wanted.items():
        with contextlib.suppress(FileExistsError):
            (view / name).symlink_to(logs)
    return sum(any(logs.rglob(FILES)) for logs in wanted.values())


def forget(home: Home, days: float) -> int:
    """Remove logs that nobody has written to for ``days`` days; of how many runs it was.

    Logs of a run that somebody executes stay. The reference keeps them 120 days.
    """
    oldest = time.time() - days * _SECONDS_PER_DAY
    forgotten = 0
    for folder in home.runs.iterdir() if home.runs.is_dir() else ():
        logs = Workplace(folder).tensorboard
        if logs.is_dir() and not run_lock.held(home, folder.name) and _newest(logs) < oldest:
            shutil.rmtree(logs, ignore_errors=True)
            forgotten += 1
    return forgotten


def _newest(folder: Path) -> float:
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.lstat().st_mtime)
    return max(times)
