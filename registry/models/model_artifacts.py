"""The bytes of model versions: MLflow's own artifacts, or somebody's own files."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import httpx

from infra import storage
from infra.errors import BadInputError, DiskFullError, NotFoundError, StackError
from infra.mlflow import MlflowException, transport
from infra.mlflow import artifacts as mlflow_artifacts
from infra.storage import Store, StoreEntry
from registry.flavors import mlmodel
from registry.tracking import client, files_of

_CHUNK = 2**20
_DELETED = "They were deleted: make the model anew from a run or files, and delete this version."
_NOT_FOUND, _RANGE_BEYOND_END, _WHOLE = 404, 416, 200  # statuses of HTTP


class Artifacts:
    """Artifacts that the MLflow server hands out, as a store gives its files."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._repository = mlflow_artifacts.repository(uri, client().tracking_uri)

    def is_directory(self) -> bool:
        """Always: a version's source is a folder of artifacts."""
        return True

    def entries(self) -> Iterator[StoreEntry]:
        """Every file below the URI, sorted by name.

        Raises:
            NotFoundError: If there is none.
        """
        found = [StoreEntry(*file) for file in sorted(files_of(self._repository))]
        if not found:
            raise NotFoundError(f"There are no artifacts at {self.uri}.", _DELETED)
        return iter(found)

    def read(self, name: str = "", *, offset: int = 0, length: int | None = None) -> bytes:
        """A piece of one file; only that piece is transferred where the server can.

        Raises:
            NotFoundError: If there is no such file.
            StackError: If the server does not give it.
        """
        last = "" if length is None else offset + length - 1
        try:
            address = f"{self._repository.artifact_uri}/{quote(name)}"
            piece = {"Range": f"bytes={offset}-{last}"}
            with contextlib.closing(
                transport.send("GET", address, stream=True, headers=piece)
            ) as answer:
                skipped = offset if answer.status_code == _WHOLE else 0
                return _piece(answer, skipped, length)
        except (MlflowException, httpx.HTTPError) as error:
            status = getattr(error, "status_code", None)
            if status == _RANGE_BEYOND_END:
                return b""
            if status == _NOT_FOUND:
                raise NotFoundError(f"There is no {name} at {self.uri}.", _DELETED) from error
            raise StackError(
                f"MLflow does not give {name} at {self.uri}: {type(error).__name__}.",
                "Repeat it; modelyard status --logs mlflow may have the cause.",
                code="ArtifactUnreadable",
            ) from error

    def fetch(self, destination: Path) -> None:
        """Download everything to ``destination``, which must not exist; all of it or nothing.

        Raises:
            NotFoundError: If there is nothing.
            DiskFullError: If it does not fit.
            StackError: If the server does not give it whole.
        """
        wanted = {entry.name: entry.size for entry in self.entries()}
        with _staged(destination) as staging:
            staging.mkdir()
            if sum(wanted.values()) > shutil.disk_usage(staging).free:
                raise DiskFullError(f"The disk of {destination} is full.", "Make room, and retry.")
            try:
                self._repository.download_artifacts("", str(staging))
            except (MlflowException, OSError) as error:  # OSError: requests' too
                raise self._broken(type(error).__name__) from error
            got = {entry.name: entry.size for entry in storage.store(str(staging)).entries()}
            if got != wanted:
                differing = sorted(name for name in wanted if got.get(name) != wanted[name])
                raise self._broken(", ".join(differing[:3]) or "there is more than was listed")
            staging.replace(destination)

    def _broken(self, reason: str) -> StackError:
        return StackError(
            f"MLflow did not give {self.uri} whole: {reason}.",
            "Repeat it; modelyard status --logs mlflow may have the cause.",
            code="ArtifactUnreadable",
        )


def _piece(answer: httpx.Response, skipped: int, length: int | None) -> bytes:
    """``length`` bytes of an HTTP answer after the first ``skipped`` of them."""
    piece = bytearray()
    for chunk in answer.iter_bytes(_CHUNK):
        piece += chunk[skipped:]
        skipped = max(0, skipped - len(chunk))
        if length is not None and len(piece) >= length:
            return bytes(piece[:length])
    return bytes(piece)


@contextlib.contextmanager
def _staged(destination: Path) -> Iterator[Path]:
    """A new folder's name beside ``destination``; gone afterwards."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}.partial")
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def artifacts(uri: str) -> Artifacts | Store:
    """What MLflow keeps at ``uri``: through its server, or where that points clients to."""
    if uri.startswith("runs:/"):
        run_id, _, folder = uri.removeprefix("runs:/").partition("/")
        uri = f"{client().get_run(run_id).info.artifact_uri}/{folder}".rstrip("/")
    if uri.startswith(("mlflow-artifacts:", "http:", "https:")):
        return Artifacts(uri)
    return storage.store(uri)


class UserFiles:
    """What a script left among MLflow's artifacts, without what lets MLflow load it."""

    def __init__(self, found: Artifacts | Store) -> None:
        self.uri = found.uri
        self._found = found

    def is_directory(self) -> bool:
        """Whether there are files below the URI; else it is one file."""
        return self._found.is_directory()

    def entries(self) -> Iterator[StoreEntry]:
        """Every file below the URI that is the user's, sorted by name.

        Raises:
            NotFoundError: If there is none.
        """
        found = list(self._found.entries())
        names = {entry.name for entry in found}
        return (entry for entry in found if not mlmodel.is_own(entry.name, names))

    def read(self, name: str = "", *, offset: int = 0, length: int | None = None) -> bytes:
        """A piece of one file."""
        return self._found.read(name, offset=offset, length=length)

    def fetch(self, destination: Path) -> None:
        """Download the user's files to ``destination``, which must not exist; all or nothing."""
        with _staged(destination) as staging:
            self._found.fetch(staging)
            if staging.is_dir():
                mlmodel.remove(staging)
            staging.replace(destination)


def files(uri: str, *, outside: bool) -> UserFiles | Store:
    """The files at ``uri``: somebody's own where ``outside``, else MLflow's."""
    return storage.store(uri) if outside else UserFiles(artifacts(uri))


def fetch(found: UserFiles | Store, destination: Path) -> None:
    """Bring the files into the folder ``destination``, which must not exist; all or nothing.

    Raises:
        BadInputError: With the code ``DestinationExists``.
        ModelyardError: If they cannot be read, or do not fit.
    """
    if destination.exists():
        raise BadInputError(
            f"{destination} already exists.", "Give a new folder.", code="DestinationExists"
        )
    if found.is_directory():
        found.fetch(destination)
        return
    (entry,) = found.entries()  # one file, which comes into a folder of its own
    with _staged(destination) as staging:
        found.fetch(staging / PurePosixPath(entry.name).name)
        staging.replace(destination)


def delete(uri: str) -> None:
    """Delete what MLflow keeps at ``uri``; nothing there is no error.

    Raises:
        StackError: If something is left.
    """
    mlflow_artifacts.repository(uri, client().tracking_uri).delete_artifacts()
    try:
        left = next(artifacts(uri).entries(), None)
    except NotFoundError:
        return
    if left is not None:
        raise StackError(
            f"MLflow has not deleted {left.name} at {uri}.",
            "Repeat the deletion.",
            code="ArtifactsLeft",
        )
