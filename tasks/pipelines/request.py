"""Request of a pipeline run, and its validation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field

from infra import instance_types, site
from infra.errors import BadInputError
from infra.home import Home
from infra.parameter_models import ParameterModel
from infra.settings import Settings
from infra.workloads.kubernetes.job_manifest import InstanceSpec
from pipelines import reading, validation
from pipelines.arguments import arguments
from pipelines.pipeline import Pipeline
from registry.pipelines import pipelines
from tasks import outputs, resources
from tasks.logs import Logs
from tasks.parameters import FlowRequest, Text
from tasks.resources import PipelineResources

MOST_PARALLEL = 1000
MOST_MOUNTS = 10
_LONGEST_BASE = 200
_MOUNTED = "/mnt"
_REMOTE_LAUNCHERS: frozenset[str] = frozenset({"kubernetes"})
_MOUNT_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")


class NasMount(ParameterModel):
    """Folder of a NAS, mounted in every component at /mnt/NAME."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    name: str = Field(description="The directory's name: letters, digits, '-' and '_'.")
    uri: str = Field(description="URI of the folder: nas://ID:/path.")


class PipelineRun(FlowRequest):
    """The request of a pipeline run."""

    name: Text = Field(default="", description="The run's name; generated if empty.")
    description: Text = Field(default="", description="Free text.")
    experiment: Text = Field(
        default="Default",
        description="The MLflow experiment that the run belongs to; created if missing.",
    )
    pipeline: Text = Field(
        default="",
        description="Required. An uploaded pipeline, NAME or NAME:VERSION; or the path of a "
        "compiled one: YAML, or a zip.",
    )
    arguments: dict[str, Any] = Field(
        default={}, description="The pipeline's input parameters by name."
    )
    resources: PipelineResources = Field(
        default=PipelineResources(), description="The machines that its tasks share."
    )
    mounts: list[NasMount] = Field(
        default=[], description="NAS folders, each mounted in the tasks at /mnt/NAME."
    )
    parallel: int = Field(
        default=64, description="Largest number of tasks that run at once, 1 to 1000."
    )
    cache: bool = Field(
        default=True,
        description="Reuse the outputs of an equal task of an earlier run.",
    )
    logs: Logs = Field(default=Logs(), description="Where the output of its tasks goes.")

    def absolute(self) -> Self:
        """Resolve relative paths against the caller's working directory."""
        changed: dict[str, Any] = {"logs": self.logs.absolute()}
        if pipelines.is_file(self.pipeline):
            changed["pipeline"] = str(Path(self.pipeline).expanduser().absolute())
        return self.model_copy(update=changed)


def base_name(pipeline: str) -> str:
    """Return the name of an uploaded pipeline, or what a file's was compiled with.

    Whatever the compiler let pass becomes what a run can be called, with room for a number.

    Args:
        pipeline: As for :func:`contents`.

    Raises:
        BadInputError: If the file does not exist or is no pipeline.
    """
    if pipelines.is_file(pipeline):
        compiled = reading.read_bytes(*contents(pipeline)).name
        plain = re.sub(r'[/:"\x00-\x1f\x7f]', "-", compiled)[:_LONGEST_BASE].strip(" .")
        return plain or "pipeline"
    return pipeline.partition(":")[0]


def folders(request: PipelineRun) -> dict[str, str]:
    """Mounts of every component: URIs by absolute paths."""
    return {f"{_MOUNTED}/{one.name}": one.uri for one in request.mounts}


def instances(request: PipelineRun, settings: Settings) -> InstanceSpec:
    """Instances on which the components of a run have their pods, on a cluster.

    Raises:
        BadInputError: With the code ``InstanceTypeUnknown``.
    """
    asked = request.resources
    name = asked.instance_type
    return InstanceSpec(
        type_name=name,
        shape=instance_types.find(name, settings) if name else None,
        count=asked.nodes,
        boot_storage_gib=asked.boot_storage_gib,
        data_storage_gib=asked.data_storage_gib,
    )


def unenforced(request: PipelineRun, settings: Settings) -> str:
    """Sentence on requested resources that nothing enforces where components run; "" if none."""
    asked, usual = request.resources, PipelineResources()
    fields = ("nodes", "boot_storage_gib", "data_storage_gib")
    names = [name for name in fields if getattr(asked, name) != getattr(usual, name)]
    if settings.pipeline_launcher in _REMOTE_LAUNCHERS or not names:
        return ""
    named = ", ".join(f"resources.{name}" for name in names)
    return f"Components ran on one machine, which does not enforce {named}."


def pin(given: Mapping[str, Any]) -> dict[str, Any]:
    """Pin the version of an uploaded pipeline in a run's parameters.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
    """
    reference = given.get("pipeline")
    if not isinstance(reference, str) or not reference or pipelines.is_file(reference):
        return dict(given)
    return {**given, "pipeline": pipelines.find(reference).reference}


def check(request: PipelineRun, kept: Path | None, home: Home, settings: Settings) -> None:
    """Refuse a pipeline run that cannot work, before any resource is allocated.

    Args:
        request: The request.
        kept: File with the pipeline of the first attempt, which a retry runs if it exists; None
            before a run exists.
        home: Modelyard's home.
        settings: Modelyard's settings.

    Raises:
        BadInputError: With a code of its own for each fault.
        NotFoundError: With the code ``PipelineUnknown``.
        DiskFullError: If the home's disk has less free space than requested.
    """
    if not 1 <= request.parallel <= MOST_PARALLEL:
        raise BadInputError(
            f"Invalid parameter `parallel`: {request.parallel}.",
            f"Give a whole number from 1 to {MOST_PARALLEL}.",
            code="ParallelInvalid",
        )
    if site.is_validating_for_remote() and pipelines.is_file(request.pipeline):
        raise BadInputError(
            f"{request.pipeline} is a local file, which the cluster's pods cannot read.",
            "Upload it first (modelyard pipeline upload), and run the uploaded pipeline.",
            code="PathNotShared",
        )
    with _where_components_run(settings):
        resources.check(request.resources.on_one_machine(), "", home, settings)
    _check_mounts(request.mounts)
    if request.logs.uri:
        outputs.check("logs.uri", request.logs.uri, [], home)
        site.inspect_store("logs.uri", request.logs.uri, lambda there: there.check_writable())
    arguments(load(str(kept) if kept and kept.exists() else request.pipeline), request.arguments)


def _where_components_run(settings: Settings) -> AbstractContextManager[None]:
    """Validate for the site of the components: this machine, or a cluster."""
    remote = settings.pipeline_launcher in _REMOTE_LAUNCHERS
    return site.validating_for_remote() if remote else nullcontext()


def _check_mounts(mounts: Sequence[NasMount]) -> None:
    if len(mounts) > MOST_MOUNTS:
        raise BadInputError(
            f"{len(mounts)} mounts are given; at most {MOST_MOUNTS} are allowed.",
            "Mount a folder that contains several of them.",
            code="MountInvalid",
        )
    seen = set()
    for one in mounts:
        if not _MOUNT_NAME.fullmatch(one.name) or one.name in seen:
            raise BadInputError(
                f"The name of the mount {one.name[:60]!r} "
                + ("is used twice." if one.name in seen else "is invalid."),
                "Use 1 to 63 letters, digits, '-' and '_', and a different name for each mount.",
                code="MountInvalid",
            )
        seen.add(one.name)
        if not one.uri.lower().startswith("nas://"):
            raise BadInputError(
                f"The mount {one.name}: {one.uri[:200]!r} is not a folder of a NAS.",
                "Write nas://ID:/path.",
                code="MountInvalid",
            )
        parameter = f"mounts.{one.name}"
        if site.inspect_store(parameter, one.uri, lambda there: there.is_directory()) is False:
            raise BadInputError(
                f"The mount {one.name}: the folder {one.uri} does not exist.", "Check the path.",
                code="MountInvalid",
            )  # fmt: skip


def contents(pipeline: str) -> tuple[bytes, str]:
    """Read the file of a pipeline; its content and its name.

    Args:
        pipeline: Path of a file, or reference of an uploaded pipeline.

    Raises:
        BadInputError: If it is empty, or the file does not exist.
        NotFoundError: With the code ``PipelineUnknown``.
    """
    if not pipeline:
        raise BadInputError(
            "The parameter `pipeline` is missing.",
            "Give the name of an uploaded pipeline (modelyard pipeline list), or the path of a "
            "file.",
            code="PipelineMissing",
        )
    if pipelines.is_file(pipeline):
        return reading.contents(Path(pipeline)), Path(pipeline).name
    return pipelines.compiled(pipeline)


def load(pipeline: str) -> Pipeline:
    """Read and validate a pipeline.

    Args:
        pipeline: As for :func:`contents`.

    Raises:
        BadInputError: If it does not exist, or with every fault of it.
        NotFoundError: With the code ``PipelineUnknown``.
    """
    found = reading.read_bytes(*contents(pipeline))
    validation.check(found)
    return found
