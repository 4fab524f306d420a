"""The request of a pipeline run, and the refusal of one that cannot work."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from infra import site
from infra.errors import BadInputError
from infra.home import Home
from infra.settings import Settings
from pipelines import reading, validation
from pipelines.arguments import arguments
from pipelines.pipeline import Pipeline
from registry import names
from registry.pipelines import pipelines
from tasks import outputs, resources
from tasks.logs import Logs
from tasks.parameters import Request, Text
from tasks.resources import PipelineResources

MOST_PARALLEL = 1000
MOST_MOUNTS = 10
_MOUNTED = "/mnt"
_APART: frozenset[str] = frozenset({"kubernetes"})  # launchers whose components are elsewhere
_MOUNT_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")


class NasMount(BaseModel):
    """A folder of a NAS, which every component finds as /mnt/NAME."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    name: str = Field(description="The directory's name: letters, digits, '-' and '_'.")
    uri: str = Field(description="nas://ID:/path.")


class PipelineRun(Request):
    """The request of a pipeline run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text = Field("", description="The run's name; given by Prefect if empty.")
    description: Text = Field("", description="Free text.")
    experiment: Text = Field("Default", description="The experiment that the run belongs to.")
    pipeline: Text = Field(
        "",
        description="An uploaded pipeline, NAME or NAME:VERSION; or the path of a compiled one: "
        "YAML, or a zip.",
    )
    arguments: dict[str, Any] = Field({}, description="The pipeline's own inputs.")
    resources: PipelineResources = Field(
        PipelineResources(), description="The machines that its tasks share."
    )
    mounts: list[NasMount] = Field(
        [], description="Folders of a NAS, each of which its tasks find as /mnt/NAME."
    )
    parallel: int = Field(64, description="The most tasks that run at once.")
    cache: bool = Field(
        True, description="Whether tasks may reuse the outputs of an equal task of any run."
    )
    logs: Logs = Field(Logs(), description="Where the output of its tasks goes.")

    def absolute(self) -> Self:
        """The same with relative paths resolved against the caller's working directory."""
        changed: dict[str, Any] = {"logs": self.logs.absolute()}
        if pipelines.is_file(self.pipeline):
            changed["pipeline"] = str(Path(self.pipeline).expanduser().absolute())
        return self.model_copy(update=changed)


def folders(request: PipelineRun) -> dict[str, str]:
    """What every component finds mounted: URIs by absolute paths."""
    return {f"{_MOUNTED}/{one.name}": one.uri for one in request.mounts}


def pin(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the version of the pipeline, which the run keeps whatever is uploaded.

    Args:
        given: A run's parameters.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
    """
    told = given.get("pipeline")
    if not isinstance(told, str) or not told or pipelines.is_file(told):
        return dict(given)
    return {**given, "pipeline": pipelines.find(told).reference}


def check(request: PipelineRun, kept: Path | None, home: Home, settings: Settings) -> None:
    """Refuse a pipeline run that cannot work, before anything is started.

    Args:
        request: What it is told.
        kept: The pipeline as the run began with it, which a retry goes on with, if there is such
            a file; None if it has not begun.
        home: Where it works.
        settings: The settings.

    Raises:
        BadInputError: With a code of its own for each fault.
        NotFoundError: If there is no such pipeline, with the code ``PipelineUnknown``.
        DiskFullError: If the home's disk has less room than the run asks for.
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
    if site.is_validating_for_remote() and pipelines.is_file(request.pipeline):
        raise BadInputError(
            f"{request.pipeline} is a file of this machine: the cluster's machines cannot access "
            "it.",
            "Upload it, and run what is uploaded: modelyard pipeline upload.",
            code="PathNotShared",
        )
    with _where_components_run(settings):
        resources.check(request.resources.on_one_machine(), "", home, settings)
    _check_mounts(request.mounts)
    if request.logs.uri:
        outputs.check("logs.uri", request.logs.uri, [], home)
        site.inspect_store(request.logs.uri, lambda there: there.check_writable())
    arguments(load(str(kept) if kept and kept.exists() else request.pipeline), request.arguments)


def _where_components_run(settings: Settings) -> AbstractContextManager[None]:
    """What the components need is checked where they run: on this machine, or elsewhere."""
    apart = settings.pipeline_launcher in _APART
    return site.validating_for_remote() if apart else nullcontext()


def _check_mounts(mounts: Sequence[NasMount]) -> None:
    if len(mounts) > MOST_MOUNTS:
        raise BadInputError(
            f"There are {len(mounts)} mounts, and at most {MOST_MOUNTS} can be given.",
            "Give one of a folder above them.",
            code="MountInvalid",
        )
    seen = set()
    for one in mounts:
        if not _MOUNT_NAME.fullmatch(one.name) or one.name in seen:
            raise BadInputError(
                f"The mount {one.name[:60]!r} "
                + ("is there twice." if one.name in seen else "cannot be called so."),
                "Use 1 to 63 letters, digits, '-' and '_', another name for each.",
                code="MountInvalid",
            )
        seen.add(one.name)
        if not one.uri.lower().startswith("nas://"):
            raise BadInputError(
                f"The mount {one.name} is of {one.uri[:200]!r}, which is no folder of a NAS.",
                "Write nas://ID:/path.",
                code="MountInvalid",
            )
        if site.inspect_store(one.uri, lambda there: there.is_directory()) is False:
            raise BadInputError(
                f"The mount {one.name}: there is no folder {one.uri}.", "Check the path.",
                code="MountInvalid",
            )  # fmt: skip


def contents(pipeline: str) -> tuple[bytes, str]:
    """The file of a pipeline, and what it is called.

    Args:
        pipeline: The path of a file, or what an uploaded pipeline is referred to as.

    Raises:
        BadInputError: If it is not there, or nothing is given.
        NotFoundError: With the code ``PipelineUnknown``.
    """
    if not pipeline:
        raise BadInputError(
            "No pipeline is given.",
            "Give the name of an uploaded one (modelyard pipeline list), or the path of a file.",
            code="PipelineMissing",
        )
    if pipelines.is_file(pipeline):
        return reading.contents(Path(pipeline)), Path(pipeline).name
    return pipelines.compiled(pipeline)


def load(pipeline: str) -> Pipeline:
    """A pipeline, which is valid.

    Args:
        pipeline: As for :func:`contents`.

    Raises:
        BadInputError: If there is none, or with everything that is wrong with it.
        NotFoundError: With the code ``PipelineUnknown``.
    """
    found = reading.read_bytes(*contents(pipeline))
    validation.check(found)
    return found
