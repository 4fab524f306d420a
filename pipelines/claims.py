"""Volume claims that a pipeline creates and deletes with the SDK's two components.

The images of these components do not exist: the engine carries out the actions itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, model_validator

from infra.errors import BadInputError
from pipelines.platform_forms import AccessMode, Amount, SettingsModel

CREATE = "argostub/createpvc"
DELETE = "argostub/deletepvc"


class DataSource(SettingsModel):
    """Data source of a claim's volume."""

    api_group: str = ""
    kind: str
    name: str


class _CreateClaimParameters(SettingsModel):
    """Parameters of the SDK's CreatePVC component."""

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
    def _one_name(self) -> _CreateClaimParameters:
        if self.pvc_name and self.pvc_name_suffix:
            raise ValueError("it is pvc_name or pvc_name_suffix, not both")
        return self


def is_claim(image: str) -> bool:
    """Whether an image represents an action on a claim instead of a container."""
    return action(image) in {CREATE, DELETE}


def action(image: str) -> str:
    """Remove an image's tag."""
    return image.split(":", maxsplit=1)[0]


def unique_prefix(run_name: str, task_id: str) -> str:
    """Build the name prefix of a claim without a name.

    Args:
        run_name: The run's name, for people.
        task_id: The identity of the task that creates the claim.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", run_name.lower()).strip("-")[:40].strip("-")
    return f"{plain or 'run'}-{task_id[:8]}"


def build_claim(parameters: Mapping[str, Any], unique: str) -> dict[str, Any]:
    """Build the manifest of the claim that a task creates.

    Args:
        parameters: The task's parameters.
        unique: What its name begins with where it has none; unique to the run.

    Raises:
        BadInputError: With the code ``ClaimInvalid``.
    """
    try:
        asked = _CreateClaimParameters.model_validate(dict(parameters))
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'its name'}: "
            f"{one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        )
        raise BadInputError(
            f"The claim cannot be created: {reasons}.",
            "Fix these arguments of kubernetes.CreatePVC in the pipeline.",
            code="ClaimInvalid",
        ) from None
    spec: dict[str, Any] = {
        "accessModes": list(asked.access_modes),
        "resources": {"requests": {"storage": asked.size}},
    }
    if asked.storage_class_name is not None:  # "" is not a class: for a volume that is there
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
