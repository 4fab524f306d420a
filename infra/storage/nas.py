"""Store of network folders mounted on this machine: ``nas://id:/path``."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import NamedTuple

from infra import settings
from infra.errors import BadInputError, NotFoundError
from infra.storage import accesses
from infra.storage.file import FileStore

_URI = re.compile(r"nas://([^/:@]+):(/.*)?", re.DOTALL | re.IGNORECASE)


class NasAddress(NamedTuple):
    """Address on a network storage.

    Attributes:
        id: Id of the NAS.
        path: Path on it, from ``/``.
    """

    id: str
    path: str


def parse(uri: str) -> NasAddress | None:
    """Return the address that ``uri`` names; None if it is not the URI of a NAS."""
    match = _URI.fullmatch(uri)
    return match and NasAddress(match[1], match[2] or "/")


class NasStore(FileStore):
    """A path below a folder that ``MODELYARD_NAS`` names; no link leads out of that folder."""

    def __init__(self, uri: str) -> None:
        """Find the mount.

        Raises:
            BadInputError: If the URI is malformed, climbs out, or has an id that no setting has.
            NotFoundError: If the folder is not there.
        """
        address = parse(uri)
        if address is None:
            raise BadInputError(
                f"{uri!r} does not name a folder of a NAS.",
                "Write nas://ID:/path.",
                code="NasUriWrong",
            )
        known = settings.load().nas
        mount = known.get(address.id)  # where it is mounted on this machine, such as in a pod
        if mount is None and (access := accesses.find(uri)):
            mount = Path(access.folder)
        if mount is None:
            near = difflib.get_close_matches(address.id, known, 3, 0) or ["none"]
            raise BadInputError(
                f"{uri}: there is no NAS with the id {address.id}. Known are: {', '.join(near)}.",
                "Name it: modelyard storage add NAME nas://ID --folder /mounted/folder, or set "
                'MODELYARD_NAS to {"ID": "/mounted/folder"}.',
                code="NasUnknown",
            )
        self._id, self._mount = address.id, mount.expanduser().absolute()
        super().__init__(uri, self._mount / address.path.lstrip("/"))
        self._check()

    @property
    def _path(self) -> Path:
        self._check()
        return self._given

    def _check(self) -> None:
        check_mounted(self.uri, self._mount)
        if not self._given.resolve().is_relative_to(self._mount.resolve()):
            raise BadInputError(
                f"{self.uri} leads out of the NAS through a link.",
                "Give the path that the link leads to.",
                code="LinkPointsOutside",
            )


def check_mounted(uri: str, folder: Path) -> None:
    """Refuse a NAS whose folder is not there, or is a file.

    Raises:
        NotFoundError: With the code ``NasNotMounted``.
    """
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else "is not there"
        raise NotFoundError(
            f"{uri}: the folder {folder} of the NAS {fault}.",
            "Mount it, or correct where it is: modelyard storage list, and MODELYARD_NAS.",
            code="NasNotMounted",
        )
