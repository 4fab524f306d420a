"""Storage: one way to read and write bytes by URI."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from infra.errors import BadInputError
from infra.storage.base import Store
from infra.storage.file import FileStore, check_tree, is_disk_full

__all__ = ["Store", "absolute", "check_tree", "is_disk_full", "store"]


def _split(uri: str) -> tuple[str, str, str]:
    """Scheme, host and path of a URI; a bare path has the scheme ``file``."""
    if "://" not in uri:
        return "file", "", uri
    parts = urlsplit(uri)
    return parts.scheme, parts.netloc, unquote(parts.path)


def absolute(uri: str) -> str:
    """``uri`` with a relative or home-relative bare path made absolute; others as they are.

    Done where the caller is: the process that will read the path has another working directory.
    """
    return uri if "://" in uri or not uri else str(Path(uri).expanduser().absolute())


def store(uri: str) -> Store:
    """The store for ``uri``.

    Raises:
        BadInputError: If the URI has an unknown scheme, is relative, or climbs with ``..``.
    """
    scheme, host, path = _split(uri)
    if "\0" in path or ".." in PurePosixPath(path).parts:
        raise BadInputError(
            f"{uri!r} climbs out of its folder.", "Give the path without '..'.", code="PathClimbs"
        )
    if scheme != "file":
        raise BadInputError(
            f"{uri}: the scheme {scheme}:// is not known.",
            "Give an absolute path or file:// URI.",
            code="UnknownScheme",
        )
    if host not in {"", "localhost"} or not path.startswith("/"):
        raise BadInputError(
            f"{uri!r} is not an absolute path.", "Start it with '/'.", code="NotAbsolute"
        )
    return FileStore(uri, Path(path))
