"""TensorBoard's view of runs: their logs side by side, and how long they are kept."""

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
from tasks.workplace import Workplace
from tuning.event_files import FILES

_SECONDS_PER_DAY = 86400.0
_TRIALS = "trials"  # in a tuning's folder: a folder for each that runs beside it, by its number


def link(
    view: Path,
    runs: Iterable[RunView],
    home: Home,
    *,
    alone: bool,
    fetched: Fetched,
) -> int:
    """Make ``view`` a folder that shows the runs' logs under their names; how many have any.

    A tuning's trials are shown below its name. It can be called again while TensorBoard reads
    the folder.

    Args:
        view: The folder; made if missing.
        runs: The runs.
        home: Where their logs are.
        alone: Whether there is one run, so that a tuning's trials need not be told from others'.
        fetched: Logs of runs that have ended elsewhere.
    """
    view.mkdir(parents=True, exist_ok=True)
    wanted: dict[PurePosixPath, Path] = {}
    names: set[str] = set()
    for run in runs:
        logs = {path: folder for path, folder in _logs(run, home, fetched) if folder.is_dir()}
        if logs:
            name = _name(run.name, run.id, names)
            names.add(name)
            top = PurePosixPath("" if alone and run.flow == flow_kinds.TUNE.name else name)
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
    """Folders of a run's logs, each with its name below the run's own."""
    own = home.runs / run.id
    if run.flow != flow_kinds.TUNE.name:
        elsewhere = run.is_final and not own.exists()
        yield "", fetched.folder(run.id) if elsewhere else Workplace(own).tensorboard
        return
    for row in trials.outline(run.id):
        number, flow_run_id, tracked = row["number"], row["flow_run_id"], row["mlflow_run_id"]
        place = home.runs / flow_run_id if flow_run_id else own / _TRIALS / str(number)
        over = row["state"] not in trials.ACTIVE
        elsewhere = bool(over and tracked and not place.exists())
        name = flow_run_id or f"{run.id}-{number}"
        yield (
            f"trial {number}",
            fetched.folder(name, tracked) if elsewhere else Workplace(place).tensorboard,
        )


def _unlink(view: Path, wanted: Mapping[PurePosixPath, Path]) -> None:
    """Take what is shown no more out of the view, or what is somewhere else by now."""
    for top in view.iterdir():
        links = [top] if top.is_symlink() else list(top.iterdir())
        for shown in links:
            if wanted.get(PurePosixPath(shown.relative_to(view))) != shown.readlink():
                shown.unlink()
        if not top.is_symlink() and top.is_dir() and not any(top.iterdir()):
            top.rmdir()


def forget(
    home: Home, days: float, owner: Callable[[str], tuple[str, int] | None] = trials.owner
) -> int:
    """Remove logs that nobody has written to for ``days`` days; of how many runs it was.

    Logs of a run that somebody executes stay, and so do those of a tuning's trials as long as it
    is executed. The reference keeps them 120 days.

    Args:
        home: Where they are.
        days: How long they are kept.
        owner: Which tuning a flow run is a trial of, if any.
    """
    oldest = time.time() - days * _SECONDS_PER_DAY
    forgotten = 0
    for folder in home.runs.iterdir() if home.runs.is_dir() else ():
        places = (folder, *folder.glob(f"{_TRIALS}/*"))
        logs = [found for place in places if (found := Workplace(place).tensorboard).is_dir()]
        if logs and max(map(_newest, logs)) < oldest and not _executed(home, folder.name, owner):
            for found in logs:
                shutil.rmtree(found, ignore_errors=True)
            forgotten += 1
    return forgotten


def _executed(
    home: Home, flow_run_id: str, owner: Callable[[str], tuple[str, int] | None]
) -> bool:
    """Whether somebody executes the run now, or the tuning that it is a trial of."""
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
