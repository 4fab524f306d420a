"""Store of network folders mounted on this machine: ``nas://id:/path``."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from infra import settings
from infra.errors import BadInputError, NotFoundError
from infra.storage import accesses
from infra.storage.file import FileStore

_URI = re.compile(r"nas://([^/:@]+):(/.*)?", re.DOTALL | re.IGNORECASE)


class NasStore(FileStore):
    """A path below a folder that ``MODELYARD_NAS`` names; no link leads out of that folder."""

    def __init__(self, uri: str) -> None:
        """Find the mount.

        Raises:
            BadInputError: If the URI is malformed, climbs out, or has an id that no setting has.
            NotFoundError: If the folder is not there.
        """
        match = _URI.fullmatch(uri)
        if match is None:
            raise BadInputError(
                f"{uri!r} does not name a folder of a NAS.",
                "Write nas://ID:/path.",
                code="NasUriWrong",
            )
        known = settings.load().nas
        mount = known.get(match[1])  # where it is mounted on this machine, such as in a pod
        if mount is None and (access := accesses.find(uri)):
            mount = Path(access.folder)
        if mount is None:
            near = difflib.get_close_matches(match[1], known, 3, 0) or ["none"]
            raise BadInputError(
                f"{uri}: there is no NAS with the id {match[1]}. Known are: {', '.join(near)}.",
                "Name it: modelyard storage add NAME nas://ID --folder /mounted/folder, or set "
                'MODELYARD_NAS to {"ID": "/mounted/folder"}.',
                code="NasUnknown",
            )
        self._id, self._mount = match[1], mount.expanduser().absolute()
        super().__init__(uri, self._mount / (match[2] or "/").lstrip("/"))
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
