"""MLflow's entities, read from the JSON of its REST interface."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")

NOTE_TAG = "mlflow.note.content"  # a description, as MLflow's UI shows and edits it
# MLflow keeps prompts as registered models of this tag.
PROMPT_TAG = "mlflow.prompt.is_prompt"
NO_PROMPTS = f"tag.`{PROMPT_TAG}` != 'true'"


class ViewType(StrEnum):
    """Which runs or experiments a search returns."""

    ACTIVE_ONLY = "ACTIVE_ONLY"
    DELETED_ONLY = "DELETED_ONLY"
    ALL = "ALL"


class Page(list[T]):
    """A page of a search.

    Attributes:
        token: Asks for the next page; "" on the last one.
    """

    def __init__(self, items: Iterable[T], token: str = "") -> None:
        super().__init__(items)
        self.token = token


@dataclass(frozen=True)
class Metric:
    """A value of a metric; its time is in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int

    def to_json(self) -> dict[str, Any]:
        """The metric as a request has it: what JSON has no number for is a string."""
        value = self.value if math.isfinite(self.value) else _NOT_FINITE[str(self.value)]
        return {**vars(self), "value": value}


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


@dataclass(frozen=True)
class Experiment:
    """An experiment; its times are in milliseconds since 1970."""

    experiment_id: str
    name: str
    lifecycle_stage: str
    tags: Mapping[str, str]
    artifact_location: str
    creation_time: int | None
    last_update_time: int | None


@dataclass(frozen=True)
class RunInfo:
    """A run without its data; its times are in milliseconds since 1970."""

    run_id: str
    run_name: str
    experiment_id: str
    status: str
    lifecycle_stage: str
    artifact_uri: str
    start_time: int | None
    end_time: int | None


@dataclass(frozen=True)
class RunData:
    """Parameters, tags and the last value of each metric of a run."""

    params: Mapping[str, str]
    tags: Mapping[str, str]
    last_metrics: tuple[Metric, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric."""
        return {metric.key: metric.value for metric in self.last_metrics}


@dataclass(frozen=True)
class MlflowRun:
    """A run."""

    info: RunInfo
    data: RunData


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model; its times are in milliseconds since 1970."""

    name: str
    version: str
    status: str
    source: str
    run_id: str
    description: str
    tags: Mapping[str, str]
    creation_timestamp: int | None


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model; its times are in milliseconds since 1970.

    Attributes:
        aliases: Versions by alias.
        latest_versions: The newest version of each stage.
    """

    name: str
    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, str]
    latest_versions: tuple[ModelVersion, ...]
    creation_timestamp: int | None
    last_updated_timestamp: int | None


@dataclass(frozen=True)
class FileInfo:
    """An artifact: its path below the run's, and its size in bytes unless it is a folder."""

    path: str
    is_dir: bool
    file_size: int | None


def experiment(found: Mapping[str, Any]) -> Experiment:
    """Read an experiment."""
    return Experiment(
        experiment_id=str(found["experiment_id"]),
        name=found["name"],
        lifecycle_stage=found.get("lifecycle_stage", ""),
        tags=_pairs(found.get("tags")),
        artifact_location=found.get("artifact_location", ""),
        creation_time=_integer(found.get("creation_time")),
        last_update_time=_integer(found.get("last_update_time")),
    )


def run(found: Mapping[str, Any]) -> MlflowRun:
    """Read a run."""
    info, data = found["info"], found.get("data", {})
    return MlflowRun(
        RunInfo(
            run_id=info["run_id"],
            run_name=info.get("run_name", ""),
            experiment_id=str(info["experiment_id"]),
            status=info.get("status", ""),
            lifecycle_stage=info.get("lifecycle_stage", ""),
            artifact_uri=info.get("artifact_uri", ""),
            start_time=_integer(info.get("start_time")),
            end_time=_integer(info.get("end_time")),
        ),
        RunData(
            params=_pairs(data.get("params")),
            tags=_pairs(data.get("tags")),
            last_metrics=tuple(map(metric, data.get("metrics", ()))),
        ),
    )


def metric(found: Mapping[str, Any]) -> Metric:
    """Read a value of a metric."""
    return Metric(
        found["key"],
        float(found["value"]),
        int(found.get("timestamp", 0)),
        int(found.get("step", 0)),
    )


def model_version(found: Mapping[str, Any]) -> ModelVersion:
    """Read a version of a model."""
    return ModelVersion(
        name=found["name"],
        version=str(found["version"]),
        status=found.get("status", ""),
        source=found.get("source", ""),
        run_id=found.get("run_id", ""),
        description=found.get("description", ""),
        tags=_pairs(found.get("tags")),
        creation_timestamp=_integer(found.get("creation_timestamp")),
    )


def registered_model(found: Mapping[str, Any]) -> RegisteredModel:
    """Read a registered model."""
    return RegisteredModel(
        name=found["name"],
        description=found.get("description", ""),
        tags=_pairs(found.get("tags")),
        aliases={one["alias"]: str(one["version"]) for one in found.get("aliases", ())},
        latest_versions=tuple(map(model_version, found.get("latest_versions", ()))),
        creation_timestamp=_integer(found.get("creation_timestamp")),
        last_updated_timestamp=_integer(found.get("last_updated_timestamp")),
    )


def file_info(found: Mapping[str, Any]) -> FileInfo:
    """Read an artifact."""
    return FileInfo(
        found["path"], bool(found.get("is_dir", False)), _integer(found.get("file_size"))
    )


def pairs(values: Iterable[tuple[str, Any]]) -> list[dict[str, str]]:
    """Tags or parameters as a request has them."""
    return [{"key": key, "value": str(value)} for key, value in values]


def _pairs(found: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    return {one["key"]: one.get("value", "") for one in found or ()}


def _integer(found: Any) -> int | None:
    return None if found is None else int(found)
