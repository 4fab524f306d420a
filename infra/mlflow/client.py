"""The methods of MLflow's client that Modelyard uses, by REST."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from infra.mlflow import artifacts, entities, transport
from infra.mlflow.entities import (
    Experiment,
    FileInfo,
    Metric,
    MlflowRun,
    ModelVersion,
    Page,
    RegisteredModel,
    RunInfo,
    ViewType,
    pairs,
)
from infra.mlflow.errors import RESOURCE_DOES_NOT_EXIST, MlflowException

_API = "/api/2.0/mlflow"
_PAGE = 1000
_MODELS_PER_PAGE = 100
_VERSIONS_PER_PAGE = 10_000
_METRICS_PER_PAGE = 25_000

M = TypeVar("M", RegisteredModel, ModelVersion)


class MlflowClient:
    """A client of one MLflow server. Several threads may use it.

    Every method raises :class:`MlflowException` if MLflow refuses, or does not answer.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        """Talk to the server at ``tracking_uri``; ``MLFLOW_TRACKING_URI`` by default."""
        self.tracking_uri = (tracking_uri or os.environ["MLFLOW_TRACKING_URI"]).rstrip("/")

    def _ask(self, method: str, path: str, **asked: Any) -> dict[str, Any]:
        """Make a request with what is not None of ``asked``; its answer."""
        given = {name: value for name, value in asked.items() if value is not None}
        body: dict[str, Any] = {"params": given} if method == "GET" else {"json": given}
        answer = transport.send(method, f"{self.tracking_uri}{_API}/{path}", **body)
        try:
            found = answer.json() if answer.content.strip() else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise MlflowException(f"The answer to {path} is not MLflow's: {answer.text[:500]}")
        return found

    # Experiments

    def create_experiment(self, name: str, tags: Mapping[str, str] = MappingProxyType({})) -> str:
        """Create an experiment; its id."""
        found = self._ask("POST", "experiments/create", name=name, tags=pairs(tags.items()))
        return str(found["experiment_id"])

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Get an experiment, also a deleted one."""
        found = self._ask("GET", "experiments/get", experiment_id=experiment_id)
        return entities.experiment(found["experiment"])

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """Get the experiment of this name, also a deleted one; None if there is none."""
        try:
            found = self._ask("GET", "experiments/get-by-name", experiment_name=name)
        except MlflowException as error:
            if not error.is_missing:
                raise
            return None
        return entities.experiment(found["experiment"])

    def search_experiments(
        self,
        view_type: ViewType = ViewType.ACTIVE_ONLY,
        *,
        filter_string: str | None = None,
        page_token: str | None = None,
    ) -> Page[Experiment]:
        """Search experiments; one page, newest first."""
        found = self._ask(
            "POST", "experiments/search", view_type=view_type, filter=filter_string,
            max_results=_PAGE, page_token=page_token,
        )  # fmt: skip
        return _page(entities.experiment, found, "experiments")

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Set a tag of an experiment."""
        asked = {"experiment_id": experiment_id, "key": key, "value": value}
        self._ask("POST", "experiments/set-experiment-tag", **asked)

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Rename an experiment."""
        self._ask("POST", "experiments/update", experiment_id=experiment_id, new_name=new_name)

    def delete_experiment(self, experiment_id: str) -> None:
        """Delete an experiment."""
        self._ask("POST", "experiments/delete", experiment_id=experiment_id)

    # Runs

    def create_run(
        self,
        experiment_id: str,
        *,
        run_name: str | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> MlflowRun:
        """Create a run, which begins now."""
        found = self._ask(
            "POST", "runs/create", experiment_id=experiment_id, run_name=run_name,
            start_time=_now(), tags=pairs(tags.items()),
            user_id=tags.get("mlflow.user", "unknown"),
        )  # fmt: skip
        return entities.run(found["run"])

    def get_run(self, run_id: str) -> MlflowRun:
        """Get a run, also a deleted one."""
        return entities.run(self._ask("GET", "runs/get", run_id=run_id)["run"])

    def update_run(
        self,
        run_id: str,
        status: str | None = None,
        name: str | None = None,
        end_time: int | None = None,
    ) -> RunInfo:
        """Change the status, such as ``RUNNING``, or the name of a run."""
        asked = {"run_id": run_id, "status": status, "run_name": name, "end_time": end_time}
        return entities.run({"info": self._ask("POST", "runs/update", **asked)["run_info"]}).info

    def set_terminated(self, run_id: str, status: str) -> RunInfo:
        """End a run now: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        return self.update_run(run_id, status, end_time=_now())

    def delete_run(self, run_id: str) -> None:
        """Delete a run; its artifacts stay."""
        self._ask("POST", "runs/delete", run_id=run_id)

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: ViewType = ViewType.ACTIVE_ONLY,
        max_results: int = _PAGE,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page[MlflowRun]:
        """Search runs of these experiments; one page."""
        found = self._ask(
            "POST", "runs/search", experiment_ids=list(experiment_ids), filter=filter_string,
            run_view_type=run_view_type, max_results=max_results, order_by=list(order_by),
            page_token=page_token,
        )  # fmt: skip
        return _page(entities.run, found, "runs")

    def log_batch(
        self,
        run_id: str,
        metrics: Iterable[Metric] = (),
        params: Iterable[tuple[str, Any]] = (),
        tags: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Log metrics and parameters, and set tags."""
        self._ask(
            "POST", "runs/log-batch", run_id=run_id, metrics=[one.to_json() for one in metrics],
            params=pairs(params), tags=pairs(tags),
        )  # fmt: skip

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag of a run."""
        self._ask("POST", "runs/set-tag", run_id=run_id, key=key, value=value)

    def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag of a run."""
        self._ask("POST", "runs/delete-tag", run_id=run_id, key=key)

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Every value of a metric."""
        return list(self._metric_history(run_id, key))

    def _metric_history(self, run_id: str, key: str) -> Iterator[Metric]:
        token: str | None = None
        while True:
            found = self._ask(
                "GET", "metrics/get-history", run_id=run_id, metric_key=key,
                max_results=_METRICS_PER_PAGE, page_token=token,
            )  # fmt: skip
            yield from map(entities.metric, found.get("metrics", ()))
            token = found.get("next_page_token")
            if not token:
                return

    # Artifacts

    def repository(self, run_id: str) -> artifacts.ArtifactRepository:
        """The artifacts of a run."""
        return artifacts.repository(self.get_run(run_id).info.artifact_uri, self.tracking_uri)

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        """List the artifacts in a folder of a run."""
        return self.repository(run_id).list_artifacts(path)

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Upload a file into a folder of a run's artifacts."""
        self.repository(run_id).log_artifact(local_path, artifact_path)

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload a folder's content into a folder of a run's artifacts."""
        self.repository(run_id).log_artifacts(local_dir, artifact_path)

    def download_artifacts(self, run_id: str, path: str, destination: str) -> None:
        """Download a folder of a run's artifacts into a folder."""
        self.repository(run_id).download_artifacts(path, destination)

    # Registered models

    def create_registered_model(self, name: str) -> None:
        """Create a registered model."""
        self._ask("POST", "registered-models/create", name=name)

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Get a registered model."""
        found = self._ask("GET", "registered-models/get", name=name)
        return _no_prompt(entities.registered_model(found["registered_model"]))

    def search_registered_models(self, page_token: str | None = None) -> Page[RegisteredModel]:
        """Every registered model; one page, by name."""
        found = self._ask(
            "GET", "registered-models/search", filter=entities.NO_PROMPTS,
            max_results=_MODELS_PER_PAGE, page_token=page_token,
        )  # fmt: skip
        return _page(entities.registered_model, found, "registered_models")

    def update_registered_model(self, name: str, description: str) -> None:
        """Describe a registered model."""
        self._ask("PATCH", "registered-models/update", name=name, description=description)

    def rename_registered_model(self, name: str, new_name: str) -> None:
        """Rename a registered model."""
        self._ask("POST", "registered-models/rename", name=name, new_name=new_name)

    def delete_registered_model(self, name: str) -> None:
        """Delete a registered model with its versions."""
        self._ask("DELETE", "registered-models/delete", name=name)

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of a registered model."""
        self._ask("POST", "registered-models/set-tag", name=name, key=key, value=value)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag of a registered model."""
        self._ask("DELETE", "registered-models/delete-tag", name=name, key=key)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Make an alias mean a version."""
        asked = {"name": name, "alias": alias, "version": version}
        self._ask("POST", "registered-models/alias", **asked)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias."""
        self._ask("DELETE", "registered-models/alias", name=name, alias=alias)

    # Versions of models

    def create_model_version(
        self,
        name: str,
        source: str,
        *,
        run_id: str | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
        description: str | None = None,
    ) -> ModelVersion:
        """Create the next version of a registered model, without waiting until it is READY."""
        found = self._ask(
            "POST", "model-versions/create", name=name, source=source, run_id=run_id,
            tags=pairs(tags.items()), description=description,
        )  # fmt: skip
        return entities.model_version(found["model_version"])

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        """Get a version of a registered model."""
        found = self._ask("GET", "model-versions/get", name=name, version=version)
        return _no_prompt(entities.model_version(found["model_version"]))

    def search_model_versions(
        self, filter_string: str, page_token: str | None = None
    ) -> Page[ModelVersion]:
        """Search versions of registered models; one page."""
        found = self._ask(
            "GET", "model-versions/search", filter=filter_string,
            max_results=_VERSIONS_PER_PAGE, page_token=page_token,
        )  # fmt: skip
        return _page(entities.model_version, found, "model_versions")

    def update_model_version(self, name: str, version: str, description: str) -> None:
        """Describe a version of a registered model."""
        asked = {"name": name, "version": version, "description": description}
        self._ask("PATCH", "model-versions/update", **asked)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a version."""
        asked = {"name": name, "version": version, "key": key, "value": value}
        self._ask("POST", "model-versions/set-tag", **asked)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Delete a tag of a version."""
        self._ask("DELETE", "model-versions/delete-tag", name=name, version=version, key=key)

    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version."""
        self._ask("DELETE", "model-versions/delete", name=name, version=version)

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        """The address of a version's files."""
        asked = {"name": name, "version": version}
        return str(self._ask("GET", "model-versions/get-download-uri", **asked)["artifact_uri"])


def _no_prompt(found: M) -> M:
    if entities.PROMPT_TAG in found.tags:
        raise MlflowException(
            f"Registered Model with name={found.name!r} not found.", RESOURCE_DOES_NOT_EXIST, 404
        )
    return found


def _page(read: Any, found: Mapping[str, Any], key: str) -> Page[Any]:
    return Page(map(read, found.get(key, ())), found.get("next_page_token", ""))


def _now() -> int:
    return int(time.time() * 1000)
