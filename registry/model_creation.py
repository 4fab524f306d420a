"""Models made of runs: what a person calls *create a model from a training*."""

from __future__ import annotations

from typing import Any

from infra.errors import ConflictError, NotFoundError
from registry import models, runs, statuses
from registry.models import Making, Origin
from registry.tracking import client

# Flows whose runs leave a model, and the folder of its files among the run's artifacts.
_FOLDERS = {"train": "model"}


def from_run(key: str, making: Making, *, name: str = "", description: str = "") -> dict[str, Any]:
    """Make the next version of a model of what a run has left; the version.

    Args:
        key: The run's id, or its name where only one run has it.
        making: What the model is served as.
        name: The model's name; the run's if empty.
        description: Of the version.

    Raises:
        NotFoundError: If there is no such run; with the code ``RunHasNoModel``, if it left none.
        ConflictError: With the code ``RunNotComplete``.
    """
    run = runs.show(key)
    if run["flow"] not in _FOLDERS:
        raise NotFoundError(
            f"A run of {run['flow']} leaves no model.",
            f"Give a run of {' or '.join(_FOLDERS)}.",
            code="RunHasNoModel",
        )
    if run["state"] != statuses.COMPLETE:
        raise ConflictError(
            f"The run {run['name']} is {run['state']}.",
            f"Only a run that is {statuses.COMPLETE} can become a model.",
            code="RunNotComplete",
        )
    origin = _origin(run, _FOLDERS[run["flow"]])
    return models.create(name or run["name"], making, description=description, origin=origin)


def _origin(run: dict[str, Any], folder: str) -> Origin:
    result = run["result"]
    if result is not None:
        run_id = result["mlflow_run_id"]
        mlflow = client()
        if mlflow.list_artifacts(run_id, folder):
            source = f"{mlflow.get_run(run_id).info.artifact_uri}/{folder}"
            return Origin(run_id, run["id"], source)
    raise NotFoundError(
        f"The run {run['name']} left no model.",
        "Its script leaves one in EM_MODEL_DIR; or the model was deleted with its files.",
        code="RunHasNoModel",
    )
