"""Transfer of workloads' files to the staging storage and back."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from pathlib import Path

from infra.errors import BadInputError, NotFoundError
from infra.storage import Store, store
from infra.storage.base import Progress
from infra.workloads.base import Workload
from infra.workloads.kubernetes.staging_plan import FILE, StagingPlan, plan, returned
from infra.workloads.sending import TransferStoppedError, send

_SCHEMES = ("s3", "obs", "nas")


class StagingArea:
    """Stages the files of one run's workloads. Several threads may use it at once."""

    def __init__(self, uri: str, run: str) -> None:
        """Stage files below a URI.

        Args:
            uri: Where files are staged.
            run: The run's id, below which its own are.
        """
        self.uri = f"{uri.rstrip('/')}/runs/{run}"
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._uploaded: dict[str, str] = {}

    def base(self, workload: str) -> str:
        """The URI below which everything is that is one workload's alone."""
        return f"{self.uri}/jobs/{workload}"

    def send(self, workload: Workload, base: str, cancelled: threading.Event) -> StagingPlan:
        """Send what a workload reads, and the plan of it.

        An input that several jobs read is sent once.

        Raises:
            ModelyardError: If it cannot be sent.
        """
        uploaded = {
            path: self._shared(path, cancelled)
            for path in workload.inputs
            if path not in workload.fetched
            and path.exists()
            and not path.is_relative_to(workload.folder)
        }
        if any(one.is_file() for one in workload.folder.rglob("*")):
            uploaded[workload.folder] = f"{base}/in"
            _send(store(f"{base}/in"), workload.folder, cancelled)
        made = plan(workload, uploaded, base)
        with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
            Path(folder, FILE).write_text(made.text())
            _send(store(f"{base}/plan"), Path(folder), cancelled)
        return made

    def _shared(self, path: Path, cancelled: threading.Event) -> str:
        key = f"{path}\0{_version(path)}"
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._uploaded:
                digest = hashlib.sha256(key.encode()).hexdigest()[:24]
                uri = f"{self.uri}/inputs/{digest}/{path.name}"
                _send(store(uri), path, cancelled)
                self._uploaded[key] = uri
            return self._uploaded[key]

    def collect(self, workload: Workload, base: str, cancelled: threading.Event) -> None:
        """Bring back what a workload has written for this machine.

        Raises:
            ModelyardError: If it cannot be brought.
        """
        there = _names(store(f"{base}/out"))
        for number, path in enumerate(returned(workload)):
            if str(number) in there:
                _bring(store(f"{base}/out/{number}"), path, cancelled)

    def forget(self, base: str) -> None:
        """Remove all that is one workload's alone."""
        store(base).remove()


def _version(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _names(found: Store) -> set[str]:
    """The names of what is directly below a URI."""
    try:
        return {entry.name.partition("/")[0] for entry in found.entries()}
    except NotFoundError:
        return set()


def _send(found: Store, source: Path, cancelled: threading.Event) -> None:
    with tempfile.TemporaryDirectory(prefix="modelyard-") as scratch:
        send(found, source, Path(scratch), _stopping(cancelled))


def _bring(found: Store, path: Path, cancelled: threading.Event) -> None:
    """Fetch what belongs at a path, into a folder that may be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".back-", dir=path.parent) as folder:
        found.fetch(Path(folder, "new"), _stopping(cancelled))
        _merge(Path(folder, "new"), path)


def _merge(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir() and not target.is_symlink():
        for entry in source.iterdir():
            _merge(entry, target / entry.name)
        return
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif source.is_dir():
        target.unlink(missing_ok=True)
    source.replace(target)


def _stopping(cancelled: threading.Event) -> Progress:
    def progress(_done: int, _all: int) -> None:
        if cancelled.is_set():
            raise TransferStoppedError(
                "It was stopped while its files were staged.", "Retry the run to have it done."
            )

    return progress


def check(uri: str) -> None:
    """Refuse a place for staging that no cluster's pod can reach, or that cannot be written to.

    Raises:
        BadInputError: With the code ``StagingMissing``.
        ModelyardError: As the place's store says it.
    """
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    if scheme not in _SCHEMES:
        raise BadInputError(
            f"Components on a cluster need a place for their files, and {uri!r} is none."
            if uri
            else "Components on a cluster need a place for their files, and none is set.",
            "Set MODELYARD_PIPELINE_STAGING_URI to an s3://, obs:// or nas:// URI.",
            code="StagingMissing",
        )
    store(uri).check_writable()
