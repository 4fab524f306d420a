"""Claims of volumes that a pipeline creates and deletes by components without a container.

The SDK has two components for them, whose images do not exist: who runs a pipeline does what they
stand for.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, ValidationError, model_validator

from infra import storage
from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.home import write_json
from infra.storage import disk
from pipelines.platform_forms import AccessMode, Amount, Form

CREATE = "argostub/createpvc"
DELETE = "argostub/deletepvc"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
OWNER = "modelyard/task"
_DELETED = ".deleted"


class DataSource(Form):
    """What a claim's volume is a copy of."""

    api_group: str = ""
    kind: str
    name: str


class _Asked(Form):
    """The parameters of the component, as the SDK declares it."""

    model_config = {"alias_generator": None}

    access_modes: list[AccessMode] = Field(min_length=1)
    size: Amount
    pvc_name: str | None = None
    pvc_name_suffix: str | None = None
    storage_class_name: str | None = None
    volume_name: str | None = None
    annotations: dict[str, str] | None = None
    data_source: DataSource | None = None

    @model_validator(mode="after")
    def _one_name(self) -> _Asked:
        if self.pvc_name and self.pvc_name_suffix:
            raise ValueError("it is pvc_name or pvc_name_suffix, not both")
        return self


def is_claim(image: str) -> bool:
    """Whether an image stands for an action on a claim, and is not to be run."""
    return action(image) in {CREATE, DELETE}


def action(image: str) -> str:
    """An image without its tag."""
    return image.split(":", maxsplit=1)[0]


def unique_prefix(run_name: str, task_id: str) -> str:
    """What the name of a claim begins with that has none of its own.

    Args:
        run_name: The run's name, for people.
        task_id: The identity of the task that creates the claim.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", run_name.lower()).strip("-")[:40].strip("-")
    return f"{plain or 'run'}-{task_id[:8]}"


def created(parameters: Mapping[str, Any], unique: str) -> dict[str, Any]:
    """The manifest of the claim that a task creates.

    Args:
        parameters: The task's parameters.
        unique: What its name begins with where it has none; unique to the run.

    Raises:
        BadInputError: With the code ``ClaimInvalid``.
    """
    try:
        asked = _Asked.model_validate(dict(parameters))
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'its name'}: "
            f"{one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        )
        raise BadInputError(f"The claim cannot be created: {told}.", code="ClaimInvalid") from None
    spec: dict[str, Any] = {
        "accessModes": list(asked.access_modes),
        "resources": {"requests": {"storage": asked.size}},
    }
    if asked.storage_class_name is not None:  # "" is no class: for a volume that is there
        spec["storageClassName"] = asked.storage_class_name
    if asked.volume_name:
        spec["volumeName"] = asked.volume_name
    if asked.data_source is not None:
        spec["dataSource"] = asked.data_source.plain()
    metadata: dict[str, Any] = {"name": asked.pvc_name or f"{unique}{asked.pvc_name_suffix or ''}"}
    if asked.annotations:
        metadata["annotations"] = asked.annotations
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": spec,
    }


def check_name(name: str) -> None:
    """Refuse what cannot be a claim's name.

    Raises:
        BadInputError: With the code ``ClaimInvalid``.
    """
    if not _NAME.fullmatch(name):
        raise BadInputError(
            f"{name[:300]!r} is no name of a claim.",
            "Use small letters, digits, '-' and '.', 253 at most.",
            code="ClaimInvalid",
        )


class Volumes(Protocol):
    """Where claims are created and deleted: this machine, or a cluster."""

    def create(self, manifest: Mapping[str, Any], owner: str) -> str:
        """Make the claim of a manifest; its name. The same owner may do so again.

        Raises:
            ConflictError: ``ClaimExists``, if somebody else has made a claim of this name.
            ModelyardError: If it cannot be made.
        """

    def delete(self, name: str) -> None:
        """Remove a claim with all its files.

        Raises:
            NotFoundError: ``ClaimMissing``.
            BadInputError: ``ClaimInvalid``.
        """


class Claims:
    """Claims as folders of this machine, each with the files of its volume.

    ``FOLDER/NAME`` is a claim, whoever has made it. One that a pipeline has made lives until a
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
            ConflictError: ``ClaimExists``, if somebody else has made a claim of this name.
            NotFoundError: ``ClaimMissing``, if it is to be a copy of one that is not there.
        """
        name = str(manifest["metadata"]["name"])
        place, about = self._place(name), self.folder / f".{name}.json"
        source = self._source(name, manifest["spec"])
        if place.exists():
            if _owner(about) == owner:
                return name
            raise taken(name)
        with disk.told(str(place)):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            told = dict(manifest["metadata"])
            told["annotations"] = {**told.get("annotations", {}), OWNER: owner}
            write_json(about, {**manifest, "metadata": told})
            new = self.folder / f".{name}.new"
            shutil.rmtree(new, ignore_errors=True)  # of an attempt that was killed
            if source is None:
                new.mkdir()
            else:
                storage.copy_tree(source, new)
            new.chmod(0o777)  # as a volume is, whoever its files belong to
            new.rename(place)
        return name

    def _source(self, name: str, spec: Mapping[str, Any]) -> Path | None:
        """What the claim is to be a copy of."""
        if volume := spec.get("volumeName"):
            raise _unsupported(f"The claim {name} wants the volume {volume}")
        source = spec.get("dataSource")
        if source is None:
            return None
        if source["kind"] != "PersistentVolumeClaim":
            raise _unsupported(f"The claim {name} is to be made of a {source['kind']}")
        return self.path(source["name"])

    def delete(self, name: str) -> None:
        """Remove a claim with all its files.

        Raises:
            NotFoundError: ``ClaimMissing``.
            BadInputError: ``ClaimInvalid``.
        """
        gone = self.folder / _DELETED
        with disk.told(str(self.folder)):
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
    """The error for a claim that somebody else has made."""
    return ConflictError(
        f"There is a claim {name} already.",
        "Give it another name or a pvc_name_suffix, or delete it first.",
        code="ClaimExists",
    )


def _unsupported(what: str) -> BadInputError:
    return BadInputError(
        f"{what}, which only a cluster has.",
        "Run it on a cluster, or let the claim begin empty.",
        code="PlatformUnsupported",
    )
