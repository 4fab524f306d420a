"""Stores of bytes by URI."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from infra.errors import BadInputError
from infra.storage.base import Store, StoreEntry
from infra.storage.disk import is_disk_full
from infra.storage.file import FileStore
from infra.storage.nas import NasStore
from infra.storage.partial import is_partial
from infra.storage.tree import check_tree
from infra.storage.tree import copy as copy_tree

__all__ = [
    "Store", "StoreEntry", "absolute", "check_tree", "copy_tree", "is_disk_full", "is_partial",
    "local_path", "store",
]  # fmt: skip


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/|.*(?=://)", re.DOTALL)


def _has_scheme(uri: str) -> bool:
    """Whether it is a URI and not a path; ``runs:/ID/model`` is a URI."""
    return _SCHEME.match(uri) is not None


def _split(uri: str) -> tuple[str, str, str]:
    """Split a URI into scheme, host and path; a bare path has the scheme ``file``.

    ? and # are letters. Only where the scheme ``file`` is written, %20 is a space.
    """
    if not _has_scheme(uri):
        return "file", "", uri
    scheme, _, rest = uri.partition(":")
    scheme = scheme.lower()
    host, slash, path = "", "", rest
    if rest.startswith("//"):
        host, slash, path = rest.removeprefix("//").partition("/")
    return scheme, host, slash + (unquote(path) if scheme == "file" else path)


def absolute(uri: str) -> str:
    """Make a relative or home-relative bare path absolute; keep other URIs.

    Done where the caller is: the process that will read the path has another working directory.
    """
    if _has_scheme(uri) or uri.startswith("/") or not uri:
        return uri
    return os.path.abspath(Path(uri).expanduser())  # noqa: PTH100 (resolve() follows links)


def local_path(uri: str) -> Path | None:
    """Return the path of a bare path or a ``file://`` URI; None for other URIs."""
    scheme, _, path = _split(uri)
    return Path(path) if scheme == "file" else None


def store(uri: str) -> Store:
    """Create the store for ``uri``.

    Raises:
        BadInputError: If the URI has an unknown scheme, is relative, or climbs with ``..``; or
            if it names a NAS that no setting knows.
        NotFoundError: If the folder of a NAS is not mounted.
    """
    scheme, host, path = _split(uri)
    if "\0" in path or ".." in PurePosixPath(path).parts:
        raise BadInputError(
            f"{uri!r} climbs out of its folder.", "Give the path without '..'.", code="PathClimbs"
        )
    if scheme in {"s3", "obs"}:
        # boto3 takes half a second to import, and many processes need no object storage.
        from infra.storage.s3 import S3Store  # noqa: PLC0415

        return S3Store(uri)
    if scheme == "nas":
        return NasStore(uri)
    if scheme != "file":
        raise BadInputError(
            f"{uri}: storage has no scheme {scheme!r}.",
            "Give an absolute path, or a file://, s3://, obs:// or nas:// URI.",
            code="UnknownScheme",
        )
    if host not in {"", "localhost"} or not path.startswith("/"):
        raise BadInputError(
            f"{uri!r} is not an absolute path.", "Start it with '/'.", code="NotAbsolute"
        )
    return FileStore(uri, Path(path))
