"""What a pipeline run is told, and the refusal of what cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from infra.errors import BadInputError
from pipelines import reading, validation
from pipelines.arguments import arguments
from pipelines.pipeline import Pipeline
from registry import names
from tasks.parameters import Text

MOST_PARALLEL = 1000


class PipelineRun(BaseModel):
    """Everything that a pipeline run is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text = ""
    description: Text = ""
    experiment: Text = "Default"
    pipeline: Text = ""
    arguments: dict[str, Any] = {}
    parallel: int = Field(64, description="How many of its tasks run at once at most.")
    cache: bool = Field(True, description="Whether tasks may take what an equal task has made.")

    def absolute(self) -> PipelineRun:
        """The same with a relative path made absolute against the caller's working directory."""
        path = str(Path(self.pipeline).expanduser().absolute()) if self.pipeline else ""
        return self.model_copy(update={"pipeline": path})


def check(request: PipelineRun) -> None:
    """Refuse a pipeline run that cannot work, before anything is started.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    if request.name:
        names.check(request.name)
    names.check_description(request.description)
    names.check_plain(request.experiment, "ExperimentInvalid")
    if not 1 <= request.parallel <= MOST_PARALLEL:
        raise BadInputError(
            f"parallel is {request.parallel}.",
            f"Give a whole number from 1 to {MOST_PARALLEL}.",
            code="ParallelInvalid",
        )
    arguments(load(request.pipeline), request.arguments)


def load(path: str) -> Pipeline:
    """The pipeline of a compiled file, which is valid.

    Raises:
        BadInputError: If there is none, or with everything that is wrong with it.
    """
    if not path:
        raise BadInputError(
            "No pipeline is given.", "Give the path of a compiled one.", code="PipelineMissing"
        )
    pipeline = reading.read(Path(path))
    validation.check(pipeline)
    return pipeline
