"""Artifacts that lie elsewhere: brought here where a task reads them, and sent where they belong.

What is brought is kept below the run's folder, once for all tasks of the run. What no store knows
the scheme of (``gs://``, ``https://``) stays an address that a task may use by itself.
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
from pipelines.executor_io import Outputs, local_path, place_of, sent_to

_HOW = "Copy it to an s3://, obs:// or nas:// URI or to a path, and give that."
_READ_ONLY = 0o444


class TransferFailedError(ModelyardError):
    """An artifact could not be brought or sent."""

    code = "TransferFailed"


class Remotes:
    """The artifacts of one run that lie elsewhere. Several threads may use it at once."""

    def __init__(
        self, folder: Path, cancelled: threading.Event, *, root: str = "", fetches: bool = True
    ) -> None:
        """Be ready.

        Args:
            folder: A folder of the run's own, for what is brought.
            cancelled: When set, transfers are given up.
            root: The URI below which the run's artifacts go; "" if they stay where they are.
            fetches: Whether what tasks read is brought here; else it is only given the place
                that it has where the task runs.
        """
        self.root = root.rstrip("/")
        self._folder = folder
        self._cancelled = cancelled
        self._fetches = fetches
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        # What this run has sent, by its URI: nobody has to bring it back.
        self._sent: dict[str, Path] = {}
        # What was found to be there, though not fetched.
        self._there: set[str] = set()

    def check(self) -> None:
        """Refuse a root that cannot be written to, before anything is run.

        Raises:
            ModelyardError: As the root's store says it.
        """
        if self.root:
            store(self.root).check_writable()

    # What a task reads

    def brought(self, task: str, bundle: Bundle) -> Bundle:
        """What a task is given, each artifact with its place on this machine, where it has one.

        Raises:
            NotFoundError: ``ArtifactMissing``, if there is nothing under an artifact's URI.
            ModelyardError: If it cannot be brought; the task and the URI are named.
        """
        return Bundle(
            bundle.parameters,
            {
                name: [self._brought(task, one) for one in value]
                if isinstance(value, list)
                else self._brought(task, value)
                for name, value in bundle.artifacts.items()
            },
        )

    def _brought(self, task: str, artifact: Artifact) -> Artifact:
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
            raise NotFoundError(f"There is nothing at {artifact.uri}.")
        return path

    def _fetched(self, found: Store) -> Path:
        """Where a store's bytes are, after the first who wants them has fetched them."""
        uri = found.uri
        with self._one_at_a_time(uri):
            sent = self._sent.get(uri)
            if sent is not None and sent.exists():
                return sent
            digest = hashlib.sha256(uri.encode()).hexdigest()[:24]
            place = self._folder / digest / _basename(uri)
            if not self._fetches:
                if uri not in self._there and not found.exists():
                    raise NotFoundError(f"There is nothing at {uri}.")
                self._there.add(uri)
            elif not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                found.fetch(place, self._progress)
                _protect(place)
            return place

    def to_workspace(self, task: str, uri: str, workspace: Path) -> Path:
        """Where in the workspace a copy of an artifact is, which is made if it is not there.

        Raises:
            BadInputError: ``ArtifactUnreachable``, if no store knows its scheme.
            ModelyardError: As for :meth:`brought`.
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

    # What a task has made

    def sent(self, outputs: Outputs, bundle: Bundle) -> Bundle:
        """What a task hands on, after all that belongs elsewhere is there.

        Where a task has written nothing, nothing is sent, as with KFP.

        Raises:
            ModelyardError: If it cannot be sent; the task and the URI are named.
        """
        return Bundle(
            bundle.parameters,
            {
                name: [self._sent_on(outputs, one) for one in value]
                if isinstance(value, list)
                else self._sent_on(outputs, value)
                for name, value in bundle.artifacts.items()
            },
        )

    def _sent_on(self, outputs: Outputs, artifact: Artifact) -> Artifact:
        source = place_of(artifact)
        uri = artifact.uri
        if source is not None and not artifact.custom_path:
            source = outputs.folder / source
            if not self.root or not source.is_relative_to(outputs.run):
                return artifact
            uri = sent_to(source, outputs.run, self.root)
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
            raise TransferStoppedError("It was stopped while artifacts were transferred.")

    @contextmanager
    def _one_at_a_time(self, key: str) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            yield


def root(asked: str, *below: str) -> str:
    """The URI below which a run's artifacts go; "" if no store can take them.

    Args:
        asked: The root that the pipeline, or the run, names.
        below: Folders below it.
    """
    if not _is_elsewhere(asked) or asked.startswith("file://") or _store(asked) is None:
        return ""
    parts = (part.replace("/", "-") for part in below)
    return "/".join([asked.rstrip("/"), *(part for part in parts if part not in {"", ".", ".."})])


def places(bundles: Iterable[Mapping[str, Artifact | list[Artifact]]]) -> dict[str, str]:
    """The local paths of artifacts whose URIs are none, by their URIs."""
    return {
        one.uri: one.custom_path
        for artifacts in bundles
        for value in artifacts.values()
        for one in (value if isinstance(value, list) else [value])
        if one.custom_path
    }


def out_of_reach(bundle: Bundle) -> dict[str, str]:
    """The inputs that have an address alone: their names, and their URIs."""
    return {
        name: shown(one.uri)
        for name, value in bundle.artifacts.items()
        for one in (value if isinstance(value, list) else [value])
        if _is_elsewhere(one.uri) and place_of(one) is None and one.schema not in METADATA_ONLY
    }


def shown(uri: str) -> str:
    """A URI for people: without what may be a password."""
    scheme, separator, rest = uri.partition("://")
    host = rest.partition("/")[0]
    return f"{scheme}://…" if separator and "@" in host else uri


def unreachable(task: str, uri: str) -> BadInputError:
    """The error for an artifact that is wanted as a file."""
    return BadInputError(
        f"The task {task} wants {shown(uri)} as a file, and nothing here can fetch it.",
        _HOW,
        code="ArtifactUnreachable",
    )


def _is_elsewhere(uri: str) -> bool:
    return "://" in uri


def _store(uri: str) -> Store | None:
    """The store of a URI; None if its scheme has none."""
    try:
        return store(uri)
    except BadInputError as error:
        if error.code in {"UnknownScheme", "NotAbsolute"}:
            return None
        raise


def _basename(uri: str) -> str:
    return PurePosixPath(uri.partition("://")[2]).name or "artifact"


def _protect(place: Path) -> None:
    """Make files read-only: tasks share them."""
    files = [place] if place.is_file() else [one for one in place.rglob("*") if one.is_file()]
    for file in files:
        if not file.is_symlink():
            file.chmod(_READ_ONLY)


@contextmanager
def _named(task: str, uri: str) -> Iterator[None]:
    """Tell of errors within with the task and the URI."""
    try:
        yield
    except ModelyardError as error:
        _raise_named(task, uri, error)


def _raise_named(task: str, uri: str, error: ModelyardError) -> NoReturn:
    if isinstance(error, TransferStoppedError) or error.code == "ArtifactUnreachable":
        raise error
    uri = shown(uri)
    if isinstance(error, NotFoundError) and error.code == NotFoundError.code:
        raise NotFoundError(
            f"The task {task} needs {uri}, and there is nothing.",
            "Check the address.",
            code="ArtifactMissing",
        ) from None
    kind = BadInputError if isinstance(error, BadInputError) else TransferFailedError
    raise kind(
        f"The task {task} and {uri}: {error.message}", error.hint, code=error.code
    ) from None
