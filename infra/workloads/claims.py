"""Claims of volumes, by the manifests that Kubernetes takes."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.home import write_json
from infra.storage import disk

OWNER = "modelyard/task"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_DELETED = ".deleted"


def check_name(name: str) -> None:
    """Refuse what cannot be a claim's name.

    Raises:
        BadInputError: With the code ``ClaimInvalid``.
    """
    if not _NAME.fullmatch(name):
        raise BadInputError(
            f"{name[:300]!r} is not a valid name of a claim.",
            "Use small letters, digits, '-' and '.', 253 at most.",
            code="ClaimInvalid",
        )


class ClaimStore(Protocol):
    """Creates and deletes claims: on this machine, or on a cluster."""

    def create(self, manifest: Mapping[str, Any], owner: str) -> str:
        """Make the claim of a manifest; its name. The same owner may do so again.

        Raises:
            ConflictError: ``ClaimExists``, if another owner has made a claim of this name.
            ModelyardError: If it cannot be made.
        """

    def delete(self, name: str) -> None:
        """Remove a claim with all its files.

        Raises:
            NotFoundError: ``ClaimMissing``.
            BadInputError: ``ClaimInvalid``.
        """


class LocalClaims:
    """Claims as folders of this machine, each with the files of its volume.

    ``FOLDER/NAME`` is a claim. One that a pipeline has made lives until a
    pipeline deletes it, or a person removes the folder. Its manifest is beside it, hidden.
    """

    def __init__(self, folder: Path) -> None:
        """Keep claims in ``folder``, which need not exist yet."""
        self.folder = folder

    def path(self, name: str) -> Path:
        """The folder of a claim.

        Raises:
            NotFoundError: ``ClaimMissing``.
            BadInputError: ``ClaimInvalid``, if no claim can have such a name.
        """
        place = self._place(name)
        if not place.is_dir():
            raise NotFoundError(
                f"There is no claim {name} on this machine.",
                f"Create it in the pipeline with kubernetes.CreatePVC, or make {place}.",
                code="ClaimMissing",
            )
        return place

    def _place(self, name: str) -> Path:
        check_name(name)
        return self.folder / name

    def create(self, manifest: Mapping[str, Any], owner: str) -> str:
        """Make the claim of a manifest; its name. The same task may do so again.

        Raises:
            BadInputError: ``ClaimInvalid``, or ``PlatformUnsupported`` for volumes that only a
                cluster has.
            ConflictError: ``ClaimExists``, if another owner has made a claim of this name.
        """
        name = str(manifest["metadata"]["name"])
        place, about = self._place(name), self.folder / f".{name}.json"
        for source in ("volumeName", "dataSource"):
            if manifest["spec"].get(source):
                raise _unsupported(name, source)
        if place.exists() and _owner(about) != owner:
            raise taken(name)
        with disk.translating_errors(str(place)):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            metadata = dict(manifest["metadata"])
            metadata["annotations"] = {**metadata.get("annotations", {}), OWNER: owner}
            write_json(about, {**manifest, "metadata": metadata})
            place.mkdir(exist_ok=True)
            place.chmod(0o777)  # as a volume is, for every user
        return name

    def delete(self, name: str) -> None:
        """Remove a claim with all its files.

        Raises:
            NotFoundError: ``ClaimMissing``.
            BadInputError: ``ClaimInvalid``.
        """
        gone = self.folder / _DELETED
        with disk.translating_errors(str(self.folder)):
            place = self.path(name)
            gone.mkdir(mode=0o700, exist_ok=True)
            place.rename(gone / uuid.uuid4().hex)
            (self.folder / f".{name}.json").unlink(missing_ok=True)
            shutil.rmtree(gone, ignore_errors=True)  # with what a kill has left there


def _owner(about: Path) -> str | None:
    """The task that has made a claim, by its manifest; None if no task has."""
    try:
        return str(json.loads(about.read_text())["metadata"]["annotations"][OWNER])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def taken(name: str) -> ConflictError:
    """The error for a claim that another owner has made."""
    return ConflictError(
        f"There is a claim {name} already.",
        "Give it another name or a pvc_name_suffix, or delete it first.",
        code="ClaimExists",
    )


def _unsupported(name: str, source: str) -> BadInputError:
    return BadInputError(
        f"The claim {name} has a {source}, which only a cluster can provide.",
        "Run it on a cluster, or let the claim begin empty.",
        code="PlatformUnsupported",
    )
