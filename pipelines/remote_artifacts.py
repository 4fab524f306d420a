"""Remote artifacts: fetched for the tasks that read them, published to the pipeline root.

A fetched artifact is kept below the run's folder, once for all tasks of the run. A URI whose
scheme no store supports (``gs://``, ``https://``) stays a URI that a task may use itself.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NoReturn

from infra.errors import BadInputError, ModelyardError, NotFoundError
from infra.storage import Store, store
from infra.workloads.sending import TransferStoppedError, send
from pipelines.artifacts import METADATA_ONLY, Artifact, Bundle
from pipelines.executor_io import OutputPlan, local_path, place_of, remote_uri_of

_HOW = "Copy it to an s3://, obs:// or nas:// URI or to a path, and give that."
_CHECK_ADDRESS = "Check the address."
_READ_ONLY = 0o444


class TransferFailedError(ModelyardError):
    """An artifact could not be fetched or published."""

    code = "TransferFailed"


class RemoteArtifacts:
    """Remote artifacts of one run. Several threads may use it at once."""

    def __init__(
        self, folder: Path, cancelled: threading.Event, *, root: str = "", fetches: bool = True
    ) -> None:
        """Prepare transfers of a run.

        Args:
            folder: The run's folder for fetched artifacts.
            cancelled: When set, transfers are given up.
            root: The pipeline root, a URI; "" if artifacts stay local.
            fetches: Whether inputs are fetched to this machine; else they only get the path that
                they have where the task runs.
        """
        self.root = root.rstrip("/")
        self._folder = folder
        self._cancelled = cancelled
        self._fetches = fetches
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        # Local paths of artifacts that this run has published, by URI: they need no fetch.
        self._sent: dict[str, Path] = {}
        # URIs that were found to exist, without a fetch.
        self._there: set[str] = set()

    def check(self) -> None:
        """Refuse a root that cannot be written to, before anything runs.

        Raises:
            ModelyardError: As the root's store says it.
        """
        if self.root:
            store(self.root).check_writable()

    # Inputs

    def fetch_inputs(self, task: str, bundle: Bundle) -> Bundle:
        """Fetch a task's input artifacts, and set their local paths.

        Raises:
            NotFoundError: ``ArtifactMissing``, if there is nothing under an artifact's URI.
            ModelyardError: If it cannot be fetched; the message names the task and the URI.
        """
        return Bundle(
            bundle.parameters,
            {
                name: [self._fetch_input(task, one) for one in value]
                if isinstance(value, list)
                else self._fetch_input(task, value)
                for name, value in bundle.artifacts.items()
            },
        )

    def _fetch_input(self, task: str, artifact: Artifact) -> Artifact:
        if artifact.custom_path or not _is_elsewhere(artifact.uri):
            return artifact
        path = local_path(artifact.uri)
        with _named(task, artifact.uri):
            if path is None:
                path = self._place(artifact)
        return artifact if path is None else replace(artifact, custom_path=str(path))

    def _place(self, artifact: Artifact) -> Path | None:
        found = _store(artifact.uri)
        if found is None:
            return None
        if artifact.schema in METADATA_ONLY and not found.exists():
            return None
        path = found.in_place() if self._fetches else None
        if path is None:
            return self._fetched(found)
        if not path.exists():
            raise NotFoundError(f"There is nothing at {artifact.uri}.", _CHECK_ADDRESS)
        return path

    def _fetched(self, found: Store) -> Path:
        """Fetch a store's bytes once, and return their local path."""
        uri = found.uri
        with self._one_at_a_time(uri):
            sent = self._sent.get(uri)
            if sent is not None and sent.exists():
                return sent
            digest = hashlib.sha256(uri.encode()).hexdigest()[:24]
            place = self._folder / digest / _basename(uri)
            if not self._fetches:
                if uri not in self._there and not found.exists():
                    raise NotFoundError(f"There is nothing at {uri}.", _CHECK_ADDRESS)
                self._there.add(uri)
            elif not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                found.fetch(place, self._progress)
                _protect(place)
            return place

    def to_workspace(self, task: str, uri: str, workspace: Path) -> Path:
        """Copy an artifact to the workspace once, and return the copy's path.

        Raises:
            BadInputError: ``ArtifactUnreachable``, if no store knows its scheme.
            ModelyardError: As for :meth:`fetch_inputs`.
        """
        scheme, _, rest = uri.partition("://") if "://" in uri else ("file", "", uri)
        parts = [part for part in rest.split("/") if part not in {"", "."}]
        place = workspace.joinpath(".artifacts", scheme, *parts)
        with _named(task, uri), self._one_at_a_time(str(place)):
            found = _store(uri)
            if found is None:
                raise unreachable(task, uri)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                found.fetch(place, self._progress)
        return place

    # Outputs

    def publish_outputs(self, outputs: OutputPlan, bundle: Bundle) -> Bundle:
        """Publish a task's output artifacts, and return its outputs with their URIs.

        Outputs that a task has not written are not published, as in KFP.

        Raises:
            ModelyardError: If it cannot be published; the message names the task and the URI.
        """
        return Bundle(
            bundle.parameters,
            {
                name: [self._publish_output(outputs, one) for one in value]
                if isinstance(value, list)
                else self._publish_output(outputs, value)
                for name, value in bundle.artifacts.items()
            },
        )

    def _publish_output(self, outputs: OutputPlan, artifact: Artifact) -> Artifact:
        source = place_of(artifact)
        uri = artifact.uri
        if source is not None and not artifact.custom_path:
            source = outputs.folder / source
            if not self.root or not source.is_relative_to(outputs.run):
                return artifact
            uri = remote_uri_of(source, outputs.run, self.root)
        with _named(outputs.task, uri):
            found = _store(uri)
            if found is None:
                return artifact
            if source is not None and source.exists():
                self._publish(found, source)
                if source.is_relative_to(outputs.run):
                    self._sent[uri] = source
        return replace(artifact, uri=uri, custom_path=None)

    def _publish(self, found: Store, source: Path) -> None:
        place = found.in_place()
        if place is not None and place.exists() and place.samefile(source):
            return
        send(found, source, self._folder / "sending", self._progress)

    def _progress(self, _done: int, _all: int) -> None:
        if self._cancelled.is_set():
            raise TransferStoppedError(
                "It was stopped while artifacts were transferred.",
                "Retry the run to have it done.",
            )

    @contextmanager
    def _one_at_a_time(self, key: str) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            yield


def root(asked: str, *below: str) -> str:
    """Return the pipeline root; "" if no store supports its scheme.

    Args:
        asked: The root that the pipeline, or the run, names.
        below: Folders below it.
    """
    if not _is_elsewhere(asked) or asked.startswith("file://") or _store(asked) is None:
        return ""
    parts = (part.replace("/", "-") for part in below)
    return "/".join([asked.rstrip("/"), *(part for part in parts if part not in {"", ".", ".."})])


def local_paths(bundles: Iterable[Mapping[str, Artifact | list[Artifact]]]) -> dict[str, str]:
    """Map URIs of remote artifacts to their local paths."""
    return {
        one.uri: one.custom_path
        for artifacts in bundles
        for value in artifacts.values()
        for one in (value if isinstance(value, list) else [value])
        if one.custom_path
    }


def unfetchable(bundle: Bundle) -> dict[str, str]:
    """List the input artifacts without a local path, as (name, URI)."""
    return {
        name: redact_uri(one.uri)
        for name, value in bundle.artifacts.items()
        for one in (value if isinstance(value, list) else [value])
        if _is_elsewhere(one.uri) and place_of(one) is None and one.schema not in METADATA_ONLY
    }


def redact_uri(uri: str) -> str:
    """Format a URI for people, without a password."""
    scheme, separator, rest = uri.partition("://")
    host = rest.partition("/")[0]
    return f"{scheme}://…" if separator and "@" in host else uri


def unreachable(task: str, uri: str) -> BadInputError:
    """Build the error for an artifact that a task needs as a file but cannot be fetched."""
    return BadInputError(
        f"The task {task} needs {redact_uri(uri)} as a file, and no store can fetch it.",
        _HOW,
        code="ArtifactUnreachable",
    )


def _is_elsewhere(uri: str) -> bool:
    return "://" in uri


def _store(uri: str) -> Store | None:
    """Return the store of a URI; None if its scheme has none."""
    try:
        return store(uri)
    except BadInputError as error:
        if error.code in {"UnknownScheme", "NotAbsolute"}:
            return None
        raise


def _basename(uri: str) -> str:
    return PurePosixPath(uri.partition("://")[2]).name or "artifact"


def _protect(place: Path) -> None:
    """Make files read-only, because tasks share them."""
    files = [place] if place.is_file() else [one for one in place.rglob("*") if one.is_file()]
    for file in files:
        if not file.is_symlink():
            file.chmod(_READ_ONLY)


@contextmanager
def _named(task: str, uri: str) -> Iterator[None]:
    """Add the task and the URI to errors raised within."""
    try:
        yield
    except ModelyardError as error:
        _raise_named(task, uri, error)


def _raise_named(task: str, uri: str, error: ModelyardError) -> NoReturn:
    if isinstance(error, TransferStoppedError) or error.code == "ArtifactUnreachable":
        raise error
    uri = redact_uri(uri)
    if isinstance(error, NotFoundError) and error.code == NotFoundError.code:
        raise NotFoundError(
            f"The task {task} needs {uri}, which does not exist.",
            _CHECK_ADDRESS,
            code="ArtifactMissing",
        ) from None
    kind = BadInputError if isinstance(error, BadInputError) else TransferFailedError
    raise kind(
        f"The task {task} and {uri}: {error.message}", error.hint, code=error.code
    ) from None
