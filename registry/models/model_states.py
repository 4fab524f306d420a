"""Status words of models and their versions, derived from MLflow's entities.

Pages show them, so nothing here imports MLflow's or Prefect's clients.
"""

from __future__ import annotations

from enum import StrEnum

from infra.mlflow import ModelVersion, RegisteredModel

DELETING_TAG = "modelyard.deleting"
DELETION_ERROR_TAG = "modelyard.deletion_error"


class ModelState(StrEnum):
    """State of a version; a model's is that of its newest version.

    Attributes:
        CREATE_REQUESTED: The model has no version yet: create one, or delete it.
        CREATE_IN_PROGRESS: MLflow is creating the version.
        CREATE_FAILED: MLflow could not create the version.
        ACTIVE: It can be used.
        DELETE_IN_PROGRESS: It is being deleted; if interrupted, delete it again.
        DELETE_FAILED: `deletion_error` says why: delete it again.
    """

    CREATE_REQUESTED = "CREATE REQUESTED"
    CREATE_IN_PROGRESS = "CREATE IN PROGRESS"
    CREATE_FAILED = "CREATE FAILED"
    ACTIVE = "ACTIVE"
    DELETE_IN_PROGRESS = "DELETE IN PROGRESS"
    DELETE_FAILED = "DELETE FAILED"


_BY_STATUS = {
    "PENDING_REGISTRATION": ModelState.CREATE_IN_PROGRESS,
    "FAILED_REGISTRATION": ModelState.CREATE_FAILED,
    "READY": ModelState.ACTIVE,
}


def is_deleting(version: ModelVersion) -> bool:
    """Whether it is claimed for deletion, or being deleted."""
    return DELETING_TAG in version.tags


def state(version: ModelVersion) -> ModelState:
    """Return the reference's word for its state, from MLflow's status and the deletion tags."""
    if DELETION_ERROR_TAG in version.tags:
        return ModelState.DELETE_FAILED
    if is_deleting(version):
        return ModelState.DELETE_IN_PROGRESS
    return _BY_STATUS[version.status]


def newest_version(model: RegisteredModel) -> ModelVersion | None:
    """Return a model's newest version; None without versions."""
    return max(model.latest_versions, key=lambda version: int(version.version), default=None)


def model_state(model: RegisteredModel, newest: ModelVersion | None) -> ModelState:
    """Return the word for a model's state: its newest version's, if it has any."""
    if newest is not None:
        return state(newest)
    if DELETING_TAG in model.tags:
        return ModelState.DELETE_IN_PROGRESS
    return ModelState.CREATE_REQUESTED
