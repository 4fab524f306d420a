"""Clean-up of the artifacts of old pipeline runs.

It removes the files of the runs' tasks from the runs' folders, and their copies in MLflow. An
artifact that a newer run reuses by caching is kept as long as that run's artifacts. Every step is
idempotent, so the next clean-up resumes an interrupted one.
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

from pydantic import Field

from infra import run_lock
from infra.errors import BadInputError
from infra.home import Home
from pipelines.executor_io import local_path
from registry import history
from registry.pipelines import pipeline_artifacts
from registry.pipelines.pipeline_artifacts import Old
from tasks.parameters import FlowRequest
from tasks.pipelines import publishing

_FOLDERS = ("artifacts", "workspace", "tasks")  # of a run; its log and its pipeline are kept
_COPIES = (publishing.FILES, publishing.REPORTS)
_MOST_NAMED = 20
_MOST_DAYS = 36_500.0


class Cleanup(FlowRequest):
    """The request of a clean-up."""

    days: float | None = Field(
        default=None,
        description="Retention of artifacts after the end of a run, in days; 0 keeps them for "
        "ever, 36500 is the most. Empty for the setting MODELYARD_PIPELINE_ARTIFACT_DAYS (120).",
    )
    dry_run: bool = Field(default=False, description="Count the files without removing them.")


def check(request: Cleanup) -> None:
    """Refuse an invalid retention.

    Raises:
        BadInputError: With the code ``DaysInvalid``.
    """
    if request.days is not None and not 0 <= request.days <= _MOST_DAYS:
        raise BadInputError(
            f"Invalid parameter `days`: {request.days:g}.",
            f"Give a number from 0, which removes nothing, to {_MOST_DAYS:g}.",
            code="DaysInvalid",
        )


@dataclass
class CleanupReport:
    """Counts of removed files; in a dry run, of those that would be removed.

    Attributes:
        runs: Ids of the runs whose files were removed.
        files: Number of files.
        bytes: Their size.
        copies: Number of files in MLflow.
        copied_bytes: Their size.
        in_use: Number of artifacts that are kept because newer runs reuse them.
        failed: Paths that could not be removed, each with the reason.
    """

    runs: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    copies: int = 0
    copied_bytes: int = 0
    in_use: int = 0
    failed: list[str] = field(default_factory=list)

    def as_result(self, days: float, *, dry_run: bool) -> dict[str, Any]:
        """Result of the flow, as plain data."""
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
    log: Callable[[str], object] = lambda _: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    settle: Callable[[], object] = lambda: None,
) -> CleanupReport:
    """Remove the artifacts of runs that ended more than ``days`` days ago.

    Args:
        home: Home that has the runs' folders.
        days: Retention in days; 0 keeps artifacts for ever.
        dry_run: Whether to count the files without removing them.
        log: Receives a line for each run.
        now: Returns the present time.
        settle: Waits until runs that are reusing an artifact right now have recorded it.
    """
    report = CleanupReport()
    if days <= 0:
        log("Artifacts are kept for ever: the setting MODELYARD_PIPELINE_ARTIFACT_DAYS is 0.")
        return report
    old = pipeline_artifacts.ended_before(now() - timedelta(days=days))
    speaking = pipeline_artifacts.speaking([run.id for run in old], str(home.runs))
    left = [run for run in old if run.id in speaking or _left(home, run.id)]
    if not left:
        return report
    folders = _OldRunFolders(home, frozenset(run.id for run in old))
    folders.refresh()
    if not dry_run:
        for run in left:
            pipeline_artifacts.disown(run.id, folders.is_removable)
        settle()
        folders.refresh()
    for run in left:
        _of_run(folders, run, report, now(), dry_run=dry_run, log=log)
    return report


def _left(home: Home, run_id: str) -> bool:
    return any(os.path.lexists(home.runs / run_id / name) for name in _FOLDERS)


class _OldRunFolders:
    """Folders of the old runs, and the artifacts in them that newer runs reuse."""

    def __init__(self, home: Home, old_ids: frozenset[str]) -> None:
        self.home = home
        self._old_ids = old_ids
        self.used: frozenset[Path] = frozenset()

    def refresh(self) -> None:
        """Read which artifacts are used by runs that are not old."""
        paths = map(self._own, pipeline_artifacts.uris_elsewhere(self._old_ids))
        self.used = frozenset(path for path in paths if path is not None)

    def is_removable(self, uri: str) -> bool:
        """Whether an artifact may be removed: nothing that contains it or is in it is reused."""
        path = self._own(uri)
        return path is not None and not any(
            path.is_relative_to(one) or one.is_relative_to(path) for one in self.used
        )

    def _own(self, uri: str) -> Path | None:
        """Path of an artifact in the folder of an old run; None for any other."""
        path = local_path(uri)
        if path is None:
            return None
        plain = Path(os.path.normpath(path))
        if not plain.is_relative_to(self.home.runs):
            return None
        run_id = next(iter(plain.relative_to(self.home.runs).parts), "")
        return plain if run_id in self._old_ids else None


def _of_run(
    folders: _OldRunFolders,
    run: Old,
    report: CleanupReport,
    now: datetime,
    *,
    dry_run: bool,
    log: Callable[[str], object],
) -> None:
    folder = folders.home.runs / run.id
    own = frozenset(path for path in folders.used if path.is_relative_to(folder))
    with _locked(folders.home, run.id) as locked:
        if not locked or not pipeline_artifacts.is_over(run.id):
            log(f"{run.name} ({run.id}) is skipped: it is active again, or its folder is a link.")
            return
        before = (report.files, report.copies, len(report.failed))
        if run.mlflow_run_id:
            count, size = pipeline_artifacts.copies(run.mlflow_run_id, _COPIES)
            if not dry_run and count:
                pipeline_artifacts.remove_copies(run.mlflow_run_id, _COPIES)
            report.copies += count
            report.copied_bytes += size
        for name in _FOLDERS:
            _clear(folder / name, own, report, dry_run=dry_run)
        report.in_use += len(own)
        files, copies = report.files - before[0], report.copies - before[1]
        whole = len(report.failed) == before[2]
        if not dry_run and whole:
            pipeline_artifacts.mark(run.id, folders.is_removable, now)
        if files or copies:
            report.runs.append(run.id)
            verb = "would be" if dry_run else "were"
            log(f"{run.name} ({run.id}): {files} files {verb} removed, and {copies} in MLflow.")
            if not dry_run:
                history.record("run", run.id, "remove-artifacts", files=files, copies=copies)


@contextmanager
def _locked(home: Home, run_id: str) -> Iterator[bool]:
    """Hold the run's lock, so that no process executes it; whether the lock was free."""
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


def _clear(folder: Path, kept: frozenset[Path], report: CleanupReport, *, dry_run: bool) -> None:
    """Remove a folder except the ``kept`` paths in it. Links are removed, not followed."""
    if folder.is_symlink():
        _remove(folder, report, dry_run=dry_run)
        return
    for root, folders, files in os.walk(folder, topdown=False, followlinks=False):
        links = [name for name in folders if Path(root, name).is_symlink()]
        for name in (*files, *links):
            path = Path(root, name)
            if not any(path == one or path.is_relative_to(one) for one in kept):
                _remove(path, report, dry_run=dry_run)
        if not dry_run:
            _remove_empty(Path(root), report)


def _remove(path: Path, report: CleanupReport, *, dry_run: bool) -> None:
    try:
        found = path.lstat()
        if not dry_run:
            path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        report.failed.append(f"{path}: {error.strerror}")
        return
    report.files += 1
    report.bytes += found.st_size if stat.S_ISREG(found.st_mode) else 0


def _remove_empty(folder: Path, report: CleanupReport) -> None:
    try:
        with os.scandir(folder) as entries:
            if next(entries, None) is not None:  # something in it is kept, or has failed
                return
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        report.failed.append(f"{folder}: {error.strerror}")
