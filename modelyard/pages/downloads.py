"""Downloads of runs' artifacts, from a run's folder or an object store."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from infra import storage
from infra.errors import BadInputError, NotFoundError
from infra.storage import Store
from pipelines.executor_io import local_path
from pipelines.run_directory import PipelineRunDirectory

_CHUNK = 4 * 2**20
_STORES = ("s3://", "obs://", "nas://")
_BINARY = "application/octet-stream"


def one(outputs: dict[str, Any], name: str, number: int) -> dict[str, Any]:
    """Return an artifact among a node's outputs.

    Args:
        outputs: Of the node, as its row has them.
        name: Of the output.
        number: Which one of a list.

    Raises:
        NotFoundError: If there is none.
    """
    found = outputs.get("artifacts", {}).get(name)
    several = found if isinstance(found, list) else [found] if found else []
    if not 0 <= number < len(several):
        raise NotFoundError(
            f"There is no artifact {name!r} of this node.",
            "Its page lists its artifacts.",
        )
    artifact: dict[str, Any] = several[number]
    return artifact


def place(uri: str, runs: Path) -> Store:
    """Return the store of an artifact's files, if they may be downloaded.

    Of this machine only what lies in the folders of runs is: a component can write any path as
    its artifact's, and links as artifacts.

    Args:
        uri: The artifact's.
        runs: The folder that the folders of runs lie in.

    Raises:
        BadInputError: With the code ``ArtifactOutside`` or ``UnknownScheme``.
        NotFoundError: With the code ``ArtifactGone``.
    """
    if uri.startswith(_STORES):
        return storage.store(uri)
    path = local_path(uri)
    if path is None:
        raise BadInputError(
            f"{uri} is not in a store that the pages can read.",
            "Fetch it with a program that knows it.",
            code="UnknownScheme",
        )
    found = _inside(path, runs)
    if found is None:
        raise BadInputError(
            f"{uri} lies outside the folders of runs.",
            "Look at it on the machine that the run was on.",
            code="ArtifactOutside",
        )
    if not found.is_file() and not found.is_dir():
        raise NotFoundError(
            f"There is nothing at {uri}.",
            "Its task wrote no file, or it was removed since.",
            code="ArtifactGone",
        )
    return storage.store(str(found))


def _inside(path: Path, runs: Path) -> Path | None:
    """Return the target of a path, if a task of a run has written it."""
    try:
        found, root = path.resolve(), runs.resolve()
        run = PipelineRunDirectory(root / found.relative_to(root).parts[0])
    except (OSError, RuntimeError, ValueError, IndexError):
        return None
    written = any(
        found.is_relative_to(folder) and found != folder for folder in (run.artifacts, run.tasks)
    )
    return found if path.is_absolute() and written else None


def offered(uri: str, runs: Path) -> bool:
    """Whether a download can be offered for an artifact, without asking its store."""
    try:
        return uri.startswith(_STORES) or place(uri, runs).exists()
    except (BadInputError, NotFoundError):
        return False


@dataclass(frozen=True)
class _Part:
    """A file of a download: its name, and its object in the store."""

    name: str
    entry: str
    size: int


def response(store: Store, name: str) -> Response:
    """Return a download: a file as it is, a folder as a zip.

    Raises:
        ModelyardError: If there is nothing, or a link leads out of a folder.
    """
    if store.is_directory():
        parts = [_Part(entry.name, entry.name, entry.size) for entry in store.entries()]
        return StreamingResponse(
            _zipped(store, parts), media_type="application/zip", headers=_named(f"{name}.zip")
        )
    (entry,) = store.entries()
    suffix = "".join(Path(entry.name).suffixes[-2:])
    named = name if name.endswith(suffix) else f"{name}{suffix}"
    part = _Part(entry.name, "", entry.size)
    headers = {**_named(named), "Content-Length": str(part.size)}
    return StreamingResponse(_read(store, part), media_type=_BINARY, headers=headers)


def _named(name: str) -> dict[str, str]:
    """Return the headers of a download, which never lets a browser render it."""
    safe = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in name)
    plain = safe.encode("ascii", "replace").decode().replace("?", "_").strip(" .") or "artifact"
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(safe, safe='')}"
    return {"Content-Disposition": disposition, "Cache-Control": "no-store"}


def _read(store: Store, part: _Part) -> Iterator[bytes]:
    """Yield a file's bytes up to its initial size, even if it grows."""
    done = 0
    while done < part.size:
        data = store.read(part.entry, offset=done, length=min(_CHUNK, part.size - done))
        if not data:
            raise OSError(f"{store.uri} has become shorter while it was read")
        done += len(data)
        yield data


class _Sink:
    """Write target of a zip: a buffer of bytes to send."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        self._waiting += data
        return len(data)

    def flush(self) -> None:
        """Do nothing: the buffer is taken whenever it has bytes."""

    def close(self) -> None:
        """Do nothing: no file is open."""

    def taken(self) -> bytes:
        data, self._waiting = bytes(self._waiting), bytearray()
        return data


def _zipped(store: Store, parts: list[_Part]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for part in parts:
            entry = zipfile.ZipInfo(part.name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=part.size > 2**31) as file:
                for data in _read(store, part):
                    file.write(data)
                    yield sink.taken()
    yield sink.taken()
