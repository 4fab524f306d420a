"""Views of uploaded pipelines, and of what pipeline runs have to show."""

from __future__ import annotations

from pydantic import Field

from registry.views import Instant, JsonObject, View


class PipelineTaskView(View):
    """A node of a pipeline run.

    Attributes:
        name: Its path in the run.
        title: The name that people gave it; empty where it has its key's.
        state: Its state.
        reason: Why it failed or was skipped.
    """

    name: str
    title: str
    state: str
    reason: str


class PipelineResultView(View):
    """The result of a pipeline run, also while it runs.

    Attributes:
        mlflow_run_id: Its MLflow run; empty without one.
        outputs: The pipeline's output parameters.
        tasks: Its nodes, by path.
    """

    mlflow_run_id: str
    outputs: JsonObject
    tasks: list[PipelineTaskView]


class PipelineVersionView(View):
    """A version of an uploaded pipeline; ``digest`` is shortened."""

    version: int
    state: str
    description: str
    file: str
    digest: str
    created: Instant
    created_by: str


class PipelineSummaryView(View):
    """An uploaded pipeline, as lists show it.

    Attributes:
        name: Its name.
        state: The reference's word for the state of its newest version.
        version: The number of its newest version.
        version_count: How many versions it has.
        description: Its description.
        created: When its first version was uploaded.
        created_by: By whom.
        changed: When it was last changed.
        changed_by: By whom.
        error: Why its newest version is CREATE FAILED; empty otherwise.
    """

    name: str
    state: str
    version: int
    version_count: int = Field(serialization_alias="versions")
    description: str
    created: Instant
    created_by: str
    changed: Instant
    changed_by: str
    error: str


class PipelineView(PipelineSummaryView):
    """An uploaded pipeline with its versions; state and error are those of ``version``.

    Attributes:
        versions: Its versions, the newest first.
        deployment: The deployment of ``version``, as ``flow/deployment``.
        history: What users did to it.
    """

    version_count: int = Field(exclude=True)
    versions: list[PipelineVersionView]
    deployment: str
    history: list[JsonObject]
