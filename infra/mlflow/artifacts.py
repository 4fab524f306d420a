"""Artifacts of MLflow's runs: those that its server hands out, and others by its own client."""

from __future__ import annotations

import contextlib
import mimetypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import httpx

from infra.mlflow import entities, transport
from infra.mlflow.entities import FileInfo
from infra.mlflow.errors import MlflowException

_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_OCTETS = "application/octet-stream"
# MLflow's client can send and fetch large files in parts, past the server.
_LARGE_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20


class ArtifactRepository(Protocol):
    """The artifacts below one URI.

    Every method raises :class:`MlflowException` if they cannot be reached.
    """

    artifact_uri: str

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a folder; empty if ``path`` is a file or does not exist."""

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload a file into a folder."""

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload a folder's content into a folder."""

    def download_artifacts(self, artifact_path: str, dst_path: str) -> None:
        """Download a folder into a folder."""

    def read(self, path: str) -> Iterator[bytes]:
        """Yield a file's content piece by piece."""

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a folder, or everything."""


def repository(uri: str, tracking_uri: str) -> ArtifactRepository:
    """The artifacts below ``uri``."""
    if urlsplit(uri).scheme == "mlflow-artifacts":
        return ServedRepository(uri, tracking_uri)
    return _OtherRepository(uri, tracking_uri)


class ServedRepository:
    """Artifacts that MLflow's server hands out.

    Attributes:
        artifact_uri: Their address, of the scheme http or https.
    """

    def __init__(self, uri: str, tracking_uri: str) -> None:
        parts, server = urlsplit(uri), tracking_uri.rstrip("/")
        if parts.netloc:
            server = f"{urlsplit(server).scheme}://{parts.netloc}{urlsplit(server).path}"
        self._uri, self._tracking_uri = uri, tracking_uri
        self._served = f"{server}{_ARTIFACTS}"
        self._root = parts.path.strip("/").removeprefix(_ARTIFACTS.strip("/")).strip("/")
        self.artifact_uri = f"{self._served}/{self._root}".rstrip("/")

    def _own_client(self) -> _OtherRepository:
        return _OtherRepository(self._uri, self._tracking_uri)

    def _address(self, path: str | None) -> str:
        return f"{self.artifact_uri}/{quote(path or '')}".rstrip("/")

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a folder; empty if ``path`` is a file or does not exist."""
        below = f"{self._root}/{path}" if path else self._root
        answer = transport.send("GET", self._served, params={"path": below})
        found = [entities.file_info(one) for one in answer.json().get("files", ())]
        inside = PurePosixPath(path or "")
        listed = [
            FileInfo(str(inside / _checked(one.path)), one.is_dir, one.file_size) for one in found
        ]
        # The server lists a file as a folder that has it.
        if path and [one.path for one in listed if not one.is_dir] == [str(inside / inside.name)]:
            return []
        return sorted(listed, key=lambda one: one.path)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload a file into a folder."""
        file = Path(local_file)
        if file.stat().st_size >= _LARGE_BYTES:
            self._own_client().log_artifact(local_file, artifact_path)
            return
        name = f"{artifact_path}/{file.name}" if artifact_path else file.name
        kind = {"Content-Type": mimetypes.guess_type(file.name)[0] or _OCTETS}
        with file.open("rb") as content:
            transport.send("PUT", self._address(name), content=content, headers=kind)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload a folder's content into a folder."""
        top = Path(local_dir)
        for root, _, names in os.walk(top):
            folder = PurePosixPath(artifact_path or "", Path(root).relative_to(top).as_posix())
            into = "" if folder == PurePosixPath() else str(folder)
            for name in names:
                self.log_artifact(str(Path(root, name)), into)

    def download_artifacts(self, artifact_path: str, dst_path: str) -> None:
        """Download a folder into a folder."""
        self._own_client().download_artifacts(artifact_path, dst_path)

    def read(self, path: str) -> Iterator[bytes]:
        """Yield a file's content piece by piece."""
        answer = transport.send("GET", self._address(path), stream=True)
        with contextlib.closing(answer):
            try:
                yield from answer.iter_bytes()
            except httpx.HTTPError as error:
                raise MlflowException(f"MLflow does not give {path}: {error}") from error

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a folder, or everything."""
        transport.send("DELETE", self._address(artifact_path))


def _checked(name: str) -> str:
    """A listed name that stays in its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise MlflowException(f"MLflow lists an artifact of the name {name!r}.")
    return name


class _OtherRepository:
    """Artifacts that MLflow's own client, which takes long to import, reaches."""

    def __init__(self, uri: str, tracking_uri: str) -> None:
        from mlflow.store.artifact import artifact_repository_registry  # noqa: PLC0415

        with _own_exceptions():
            self._repository: Any = artifact_repository_registry.get_artifact_repository(
                uri, tracking_uri=tracking_uri
            )
        self.artifact_uri = str(self._repository.artifact_uri)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a folder; empty if ``path`` is a file or does not exist."""
        with _own_exceptions():
            found = self._repository.list_artifacts(path)
        return [FileInfo(one.path, one.is_dir, one.file_size) for one in found]

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload a file into a folder."""
        with _own_exceptions():
            self._repository.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload a folder's content into a folder."""
        with _own_exceptions():
            self._repository.log_artifacts(local_dir, artifact_path)

    def download_artifacts(self, artifact_path: str, dst_path: str) -> None:
        """Download a folder into a folder."""
        with _own_exceptions():
            self._repository.download_artifacts(artifact_path, dst_path)

    def read(self, path: str) -> Iterator[bytes]:
        """Yield a file's content piece by piece."""
        with tempfile.TemporaryDirectory() as folder:
            self.download_artifacts(path, folder)
            with Path(folder, path).open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a folder, or everything."""
        with _own_exceptions():
            self._repository.delete_artifacts(artifact_path)


@contextlib.contextmanager
def _own_exceptions() -> Iterator[None]:
    """Raise :class:`MlflowException` for that of MLflow's own client."""
    from mlflow import exceptions  # noqa: PLC0415 (takes long)

    try:
        yield
    except exceptions.MlflowException as error:
        status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
        raise MlflowException(str(error), error.error_code, status) from error
