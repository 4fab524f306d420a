"""Layout of the local stack's home folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import settings
from infra.errors import StackError

# A socket's path must fit into sockaddr_un: 104 bytes on macOS, 108 on Linux.
_LONGEST_SOCKET_FOLDER = 70


@dataclass(frozen=True)
class Home:
    """The folders and files below one ``MODELYARD_HOME``."""

    root: Path

    @property
    def database(self) -> Path:
        """Data folder of the embedded PostgreSQL."""
        return self.root / "postgres"

    @property
    def has_database(self) -> bool:
        """Whether the data folder was initialized."""
        return (self.database / "PG_VERSION").exists()

    @property
    def artifacts(self) -> Path:
        """Artifact store of the MLflow server."""
        return self.root / "artifacts"

    @property
    def runs(self) -> Path:
        """One working folder per flow run, named by its id."""
        return self.root / "runs"

    @property
    def overlays(self) -> Path:
        """Environments of scripts' requirements, by content."""
        return self.root / "overlays"

    @property
    def tensorboards(self) -> Path:
        """One file per running TensorBoard; see ``modelyard/tensorboards.py``."""
        return self.root / "tensorboards"

    @property
    def hub(self) -> Path:
        """What servers of models have downloaded from the hub; see ``serving/hub_cache.py``."""
        return self.root / "hub"

    @property
    def logs(self) -> Path:
        """One log file per part of the stack."""
        return self.root / "logs"

    @property
    def prefect(self) -> Path:
        """``PREFECT_HOME`` of all processes of the stack."""
        return self.root / "prefect"

    @property
    def runner(self) -> Path:
        """Storage of the workers' runners, which Prefect keeps in a folder shared by all users."""
        return self.root / "runner"

    @property
    def lock(self) -> Path:
        """Lock file that the supervisor holds while it is running."""
        return self.root / "stack.lock"

    @property
    def credential(self) -> Path:
        """Credential of the stack's servers; see ``infra/door/credential.py``."""
        return self.root / "credential"

    @property
    def logins(self) -> Path:
        """Used login tokens of browsers; see ``infra/door/sessions.py``."""
        return self.root / "logins"

    @property
    def record(self) -> Path:
        """Record of the running supervisor."""
        return self.root / "stack.json"

    @property
    def sockets(self) -> Path:
        """Folder of the Unix sockets; in the temporary folder if the home's path is too long."""
        folder = self.root / "sockets"
        if len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER:
            return folder
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"modelyard-{os.getuid()}-{digest}"

    def free_bytes(self) -> int:
        """Free bytes on the home's disk; the home itself need not exist yet."""
        existing = next(path for path in (self.root, *self.root.parents) if path.exists())
        return shutil.disk_usage(existing).free

    def make(self) -> None:
        """Create the folders, accessible by their owner only.

        Raises:
            StackError: If the home cannot be created, or a folder belongs to another user.
        """
        try:
            for folder in (self.root, self.sockets, self.artifacts, self.runs, self.overlays,
                           self.logs, self.prefect, self.runner):  # fmt: skip
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"The home {self.root} cannot be used: {error.strerror}.",
                "Set MODELYARD_HOME to a folder that you may write to.",
            ) from error
        found = self.sockets.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            raise StackError(
                f"{self.sockets} belongs to another user.",
                "Set MODELYARD_HOME to another folder.",
            )
        self.sockets.chmod(0o700)


def current() -> Home:
    """Return the home that the settings name."""
    return Home(settings.load().resolved_home())


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` atomically by ``value`` as JSON."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value, indent=2))
    partial.replace(path)
