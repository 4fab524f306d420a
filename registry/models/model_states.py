"""Status words of models and their versions, derived from MLflow's entities.

Pages show them, so nothing here imports MLflow's or Prefect's clients.
"""

from __future__ import annotations

from infra.mlflow import ModelVersion, RegisteredModel
from registry.runs import statuses

DELETING_TAG = "modelyard.deleting"
DELETION_ERROR_TAG = "modelyard.deletion_error"

ACTIVE = "ACTIVE"
DELETE_IN_PROGRESS = "DELETE IN PROGRESS"
DELETE_FAILED = "DELETE FAILED"
_BY_STATUS = {
    "PENDING_REGISTRATION": statuses.CREATE_IN_PROGRESS,
    "FAILED_REGISTRATION": statuses.CREATE_FAILED,
    "READY": ACTIVE,
}


def is_deleting(version: ModelVersion) -> bool:
    """Whether it is claimed for deletion, or being deleted."""
    return DELETING_TAG in version.tags


def state(version: ModelVersion) -> str:
    """Return the reference's word for its state, from MLflow's status and the deletion tags."""
    if DELETION_ERROR_TAG in version.tags:
        return DELETE_FAILED
    if is_deleting(version):
        return DELETE_IN_PROGRESS
    return _BY_STATUS[version.status]


def newest_version(model: RegisteredModel) -> ModelVersion | None:
    """Return a model's newest version; None without versions."""
    return max(model.latest_versions, key=lambda version: int(version.version), default=None)


def model_state(model: RegisteredModel, newest: ModelVersion | None) -> str:
    """Return the word for a model's state: its newest version's, if it has any."""
    if newest is not None:
        return state(newest)
    return DELETE_IN_PROGRESS if DELETING_TAG in model.tags else statuses.CREATE_REQUESTED
