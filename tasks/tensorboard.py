"""TensorBoard logs of runs: a folder that links them for one view, and their retention."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from infra import run_lock
from infra.home import Home
from registry import flow_kinds
from registry.runs.run_views import RunView
from registry.runs.tensorboard_logs import Fetched
from registry.tunings import trials
from tasks.run_directory import RunDirectory
from tuning.event_files import FILES

_SECONDS_PER_DAY = 86400.0
_TRIALS = "trials"  # folder of a tuning that has one folder per inline trial, by its number


def link_logs(
    view: Path,
    runs: Iterable[RunView],
    home: Home,
    *,
    single: bool,
    fetched: Fetched,
) -> int:
    """Link the runs' logs in the folder ``view`` under their names.

    A tuning's trials are below its name. The function can be called again while TensorBoard reads
    the folder.

    Args:
        view: The folder; created if missing.
        runs: The runs.
        home: Home that has their folders.
        single: Whether only one run is shown; a tuning's trials then have no folder above them.
        fetched: Logs of runs that ended on other machines.

    Returns:
        How many logs the folder has.
    """
    view.mkdir(parents=True, exist_ok=True)
    wanted: dict[PurePosixPath, Path] = {}
    names: set[str] = set()
    for run in runs:
        logs = {path: folder for path, folder in _logs(run, home, fetched) if folder.is_dir()}
        if logs:
            name = _name(run.name, run.id, names)
            names.add(name)
            top = PurePosixPath("" if single and run.flow == flow_kinds.TUNE.name else name)
            wanted |= {top / path: folder for path, folder in logs.items()}
    _unlink(view, wanted)
    for shown, folder in wanted.items():
        (view / shown).parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (view / shown).symlink_to(folder)
    return sum(any(folder.rglob(FILES)) for folder in wanted.values())


def _name(name: str, run_id: str, taken: set[str]) -> str:
    name = name.replace("/", "_")
    return f"{name} {run_id[:8]}" if name in taken or name.startswith(".") else name


def _logs(run: RunView, home: Home, fetched: Fetched) -> Iterator[tuple[str, Path]]:
    """Yield the folders of a run's logs, each with its name below that of the run."""
    own = home.runs / run.id
    if run.flow != flow_kinds.TUNE.name:
        remote = run.is_final and not own.exists()
        yield "", fetched.folder(run.id) if remote else RunDirectory(own).tensorboard
        return
    for row in trials.outline(run.id):
        number, flow_run_id, tracked = row["number"], row["flow_run_id"], row["mlflow_run_id"]
        folder = home.runs / flow_run_id if flow_run_id else own / _TRIALS / str(number)
        over = row["state"] not in trials.ACTIVE
        remote = bool(over and tracked and not folder.exists())
        name = flow_run_id or f"{run.id}-{number}"
        yield (
            f"trial {number}",
            fetched.folder(name, tracked) if remote else RunDirectory(folder).tensorboard,
        )


def _unlink(view: Path, wanted: Mapping[PurePosixPath, Path]) -> None:
    """Remove links that are not wanted any more, or that have another target now."""
    for top in view.iterdir():
        links = [top] if top.is_symlink() else list(top.iterdir())
        for shown in links:
            if wanted.get(PurePosixPath(shown.relative_to(view))) != shown.readlink():
                shown.unlink()
        if not top.is_symlink() and top.is_dir() and not any(top.iterdir()):
            top.rmdir()


def prune(
    home: Home, days: float, owner: Callable[[str], tuple[str, int] | None] = trials.owner
) -> int:
    """Remove logs that were last written more than ``days`` days ago.

    Logs of a run that is executing are kept, and so are those of a tuning's trials while the
    tuning is executing. The reference keeps them for 120 days.

    Args:
        home: Home that has the runs' folders.
        days: Retention in days.
        owner: Returns the tuning and the number of a flow run that is a trial, else None.

    Returns:
        How many runs had logs removed.
    """
    oldest = time.time() - days * _SECONDS_PER_DAY
    pruned = 0
    for folder in home.runs.iterdir() if home.runs.is_dir() else ():
        owners = (folder, *folder.glob(f"{_TRIALS}/*"))
        logs = [found for one in owners if (found := RunDirectory(one).tensorboard).is_dir()]
        if (
            logs
            and max(map(_newest, logs)) < oldest
            and not _is_executing(home, folder.name, owner)
        ):
            for found in logs:
                shutil.rmtree(found, ignore_errors=True)
            pruned += 1
    return pruned


def _is_executing(
    home: Home, flow_run_id: str, owner: Callable[[str], tuple[str, int] | None]
) -> bool:
    """Whether a process executes the run, or the tuning that it is a trial of."""
    if run_lock.is_held(home, flow_run_id):
        return True
    tuning, _ = owner(flow_run_id) or ("", 0)
    return bool(tuning and run_lock.is_held(home, tuning))


def _newest(folder: Path) -> float:
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.lstat().st_mtime)
    return max(times)
