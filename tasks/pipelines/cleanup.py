"""The removal of artifacts of pipeline runs that ended long ago.

What goes is what the run's tasks have left: in the run's folder, and copies of it in MLflow. What
a newer run has taken over by caching stays as long as that one's artifacts do. Each step can be
done again, so whatever ends the clean-up, the next one goes on with it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field

from infra import run_lock
from infra.errors import BadInputError
from infra.home import Home
from pipelines.executor_io import local_path
from registry import history
from registry.pipelines import pipeline_artifacts
from registry.pipelines.pipeline_artifacts import Old
from tasks.parameters import Request
from tasks.pipelines import publishing

_FOLDERS = ("artifacts", "workspace", "tasks")  # of a run's; its log and its pipeline stay
_COPIES = (publishing.FILES, publishing.REPORTS)
_MOST_NAMED = 20
_MOST_DAYS = 36_500.0


class Cleanup(Request):
    """The request of a clean-up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: float | None = Field(
        None,
        description="How long artifacts are kept after a run's end, in days; 0 is for ever. Empty "
        "for the setting MODELYARD_PIPELINE_ARTIFACT_DAYS: 120.",
    )
    dry_run: bool = Field(False, description="Only count what would be removed.")


def check(request: Cleanup) -> None:
    """Refuse a clean-up with an impossible age.

    Raises:
        BadInputError: With the code ``DaysInvalid``.
    """
    if request.days is not None and not 0 <= request.days <= _MOST_DAYS:
        raise BadInputError(
            f"days is {request.days:g}.",
            f"Give a number from 0, which removes nothing, to {_MOST_DAYS:g}.",
            code="DaysInvalid",
        )


@dataclass
class Removed:
    """What was removed, or would be.

    Attributes:
        runs: Of which runs.
        files: How many files.
        bytes: How many bytes they had.
        copies: How many files in MLflow.
        copied_bytes: How many bytes those had.
        in_use: How many artifacts stay, because newer runs have taken them over.
        failed: What could not be removed, for people.
    """

    runs: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    copies: int = 0
    copied_bytes: int = 0
    in_use: int = 0
    failed: list[str] = field(default_factory=list)

    def as_result(self, days: float, *, dry_run: bool) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "days": days, "dry_run": dry_run, "runs": len(self.runs), "files": self.files,
            "bytes": self.bytes, "mlflow_files": self.copies, "mlflow_bytes": self.copied_bytes,
            "in_use": self.in_use, "failed": self.failed[:_MOST_NAMED],
        }  # fmt: skip


def clean_up(
    home: Home,
    days: float,
    *,
    dry_run: bool = False,
    say: Callable[[str], object] = lambda _: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    settle: Callable[[], object] = lambda: None,
) -> Removed:
    """Remove the artifacts of runs that ended more than so many days ago.

    Args:
        home: Where the runs' folders are.
        days: How long artifacts are kept; 0 is for ever.
        dry_run: Whether nothing is removed, only counted.
        say: Told what is done with each run.
        now: The present.
        settle: Lets a run that is just taking something over write that down.
    """
    removed = Removed()
    if days <= 0:
        say("Artifacts are kept for ever: the setting MODELYARD_PIPELINE_ARTIFACT_DAYS is 0.")
        return removed
    old = pipeline_artifacts.ended_before(now() - timedelta(days=days))
    speaking = pipeline_artifacts.speaking([run.id for run in old], str(home.runs))
    left = [run for run in old if run.id in speaking or _left(home, run.id)]
    if not left:
        return removed
    place = _Place(home, frozenset(run.id for run in old))
    place.look()
    if not dry_run:
        for run in left:
            pipeline_artifacts.disown(run.id, place.goes)
        settle()
        place.look()
    for run in left:
        _of_run(place, run, removed, now(), dry_run=dry_run, say=say)
    return removed


def _left(home: Home, run_id: str) -> bool:
    return any(os.path.lexists(home.runs / run_id / name) for name in _FOLDERS)


class _Place:
    """The folders of the runs whose artifacts go, and what of them stays."""

    def __init__(self, home: Home, old_ids: frozenset[str]) -> None:
        self.home = home
        self._old_ids = old_ids
        self.used: frozenset[Path] = frozenset()

    def look(self) -> None:
        """Find out what is an artifact of a run whose artifacts stay."""
        paths = map(self._own, pipeline_artifacts.uris_elsewhere(self._old_ids))
        self.used = frozenset(path for path in paths if path is not None)

    def goes(self, uri: str) -> bool:
        """Whether an artifact goes: nothing around it or in it is used elsewhere."""
        path = self._own(uri)
        return path is not None and not any(
            path.is_relative_to(one) or one.is_relative_to(path) for one in self.used
        )

    def _own(self, uri: str) -> Path | None:
        """Where an artifact lies, if that is in the folder of one of the runs."""
        path = local_path(uri)
        if path is None:
            return None
        plain = Path(os.path.normpath(path))
        if not plain.is_relative_to(self.home.runs):
            return None
        run_id = next(iter(plain.relative_to(self.home.runs).parts), "")
        return plain if run_id in self._old_ids else None


def _of_run(
    place: _Place,
    run: Old,
    removed: Removed,
    now: datetime,
    *,
    dry_run: bool,
    say: Callable[[str], object],
) -> None:
    folder = place.home.runs / run.id
    own = frozenset(path for path in place.used if path.is_relative_to(folder))
    with _alone(place.home, run.id) as alone:
        if not alone or not pipeline_artifacts.is_over(run.id):
            say(f"{run.name} ({run.id}) is left alone: it goes on again, or its folder is a link.")
            return
        before = (removed.files, removed.copies, len(removed.failed))
        if run.mlflow_run_id:
            count, size = pipeline_artifacts.copies(run.mlflow_run_id, _COPIES)
            if not dry_run and count:
                pipeline_artifacts.remove_copies(run.mlflow_run_id, _COPIES)
            removed.copies += count
            removed.copied_bytes += size
        for name in _FOLDERS:
            _clear(folder / name, own, removed, dry_run=dry_run)
        removed.in_use += len(own)
        files, copies = removed.files - before[0], removed.copies - before[1]
        whole = len(removed.failed) == before[2]
        if not dry_run and whole:
            pipeline_artifacts.mark(run.id, place.goes, now)
        if files or copies:
            removed.runs.append(run.id)
            verb = "would be" if dry_run else "are"
            say(f"{run.name} ({run.id}): {files} files {verb} removed, and {copies} in MLflow.")
            if not dry_run:
                history.record("run", run.id, "remove-artifacts", files=files, copies=copies)


@contextmanager
def _alone(home: Home, run_id: str) -> Iterator[bool]:
    """Keep others from executing the run for the while; whether nobody does."""
    folder = home.runs / str(UUID(run_id))
    if not folder.is_dir() or folder.is_symlink():
        yield not folder.is_symlink()
        return
    with run_lock.scope():
        try:
            run_lock.acquire(home, run_id)
        except run_lock.AlreadyExecutedError:
            yield False
        else:
            yield True


def _clear(folder: Path, kept: frozenset[Path], removed: Removed, *, dry_run: bool) -> None:
    """Remove a folder but for what is kept in it. Links go themselves, not what they lead to."""
    if folder.is_symlink():
        _remove(folder, removed, dry_run=dry_run)
        return
    for place, folders, files in os.walk(folder, topdown=False, followlinks=False):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in (*files, *links):
            path = Path(place, name)
            if not any(path == one or path.is_relative_to(one) for one in kept):
                _remove(path, removed, dry_run=dry_run)
        if not dry_run:
            _remove_empty(Path(place), removed)


def _remove(path: Path, removed: Removed, *, dry_run: bool) -> None:
    try:
        found = path.lstat()
        if not dry_run:
            path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        removed.failed.append(f"{path}: {error.strerror}")
        return
    removed.files += 1
    removed.bytes += found.st_size if stat.S_ISREG(found.st_mode) else 0


def _remove_empty(folder: Path, removed: Removed) -> None:
    try:
        with os.scandir(folder) as entries:
            if next(entries, None) is not None:  # something in it is kept, or has failed
                return
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        removed.failed.append(f"{folder}: {error.strerror}")
