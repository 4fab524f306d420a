"""Models with the runs that made them, some of which may be gone."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator

from infra.errors import NotFoundError
from registry import history
from registry.models import models
from registry.models.model_views import ModelVersionView, ModelView
from registry.runs import runs

_logger = logging.getLogger("modelyard.models")


def show(name: str) -> ModelView:
    """Return a model with its versions and its history, and a notice of each run that is gone.

    Raises:
        NotFoundError: If there is no such model.
    """
    found = models.show(name)
    made = {version.flow_run_id for version in found.versions if version.flow_run_id}
    there = {run.id for run in runs.with_ids(made)}
    notices = [notice for version in found.versions for notice in _notices(version, there)]
    return found.model_copy(update={"notices": notices})


def _notices(version: ModelVersionView, there: Collection[str]) -> Iterator[str]:
    """Yield which of a version's runs are gone; ``there`` are the runs that Prefect has."""
    has_mlflow_run = version.run_name is not None
    if version.flow_run_id and version.flow_run_id not in there:
        yield (
            f"Prefect no longer has the run {version.flow_run_id}, which made version "
            f"{version.version}."
            + f" Its metrics and logs are in the MLflow run {version.mlflow_run_id}."
            * has_mlflow_run
        )
    if version.mlflow_run_id and not has_mlflow_run:
        yield (
            f"MLflow no longer has the run {version.mlflow_run_id}, which made version "
            f"{version.version}."
        )


def report_gone() -> None:
    """Log each run of a model that is gone, once: the model's history has what was logged."""
    for name in [model.name for model in models.list_all()]:
        with contextlib.suppress(NotFoundError):  # deleted or renamed since
            found = show(name)
            known = {_fact(deed["detail"].get("notice", "")) for deed in found.history}
            for notice in found.notices:
                if _fact(notice) not in known:
                    _logger.warning("The model %s: %s", name, notice)
                    history.record(models.NOUN, name, "run gone", notice=notice)


def _fact(notice: str) -> str:
    """Return the sentence of a notice that stays the same while other runs go."""
    return notice.partition(".")[0]
