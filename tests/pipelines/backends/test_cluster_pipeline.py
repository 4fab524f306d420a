"""Whole pipelines, each of their components a Job."""

import threading
from pathlib import Path

import pytest
from kfp import dsl

from infra.errors import BadInputError
from infra.home import Home
from infra.settings import Settings
from infra.workloads.kubernetes.backend import RunAttempt
from pipelines import reading, remote_artifacts
from pipelines.artifacts import Artifact, Bundle
from pipelines.backends import choice
from pipelines.components import Components
from pipelines.execution import Execution
from pipelines.pipeline import Pipeline
from pipelines.placeholders import PlaceholderFacts
from pipelines.run_directory import PipelineRunDirectory
from pipelines.states import TaskState
from tests.infra.workloads.kubernetes.small_cluster import Running
from tests.pipelines.corpus import compile_function
from tests.pipelines.running import Threads

pytestmark = pytest.mark.integration


@dsl.container_component
def make(source: dsl.Input[dsl.Dataset], data: dsl.Output[dsl.Dataset]):
    return dsl.ContainerSpec(
        image="alpine:3",
        command=["sh", "-c", 'mkdir -p "$1"; tr a-z A-Z < "$0" > "$1/text"; echo made'],
        args=[source.path, data.path],
    )


@dsl.container_component
def read(data: dsl.Input[dsl.Dataset], said: dsl.OutputPath(str)):  # type: ignore[valid-type]
    return dsl.ContainerSpec(
        image="alpine:3",
        command=["sh", "-c", 'mkdir -p "$(dirname "$1")"; cat "$0/text" > "$1"'],
        args=[data.path, said],
    )


@dsl.pipeline(name="carried")
def carried(source: dsl.Input[dsl.Dataset]) -> str:
    made = make(source=source)
    return read(data=made.outputs["data"]).outputs["said"]


def _components(
    running: Running, folder: Path, pipeline: Pipeline, lines: list[tuple[str, str]]
) -> Components:
    """What runs a pipeline's components, as the settings choose it."""
    cluster = folder / "cluster.yaml"
    cluster.write_text("image: modelyard:1\nnas: {own: {server: nas.test, path: /export}}\n")
    settings = Settings(
        home=folder / "home", pipeline_launcher="kubernetes", cluster=cluster,
        pipeline_staging_uri="nas://own:/staging",
    )  # fmt: skip
    backend = choice.backend(settings, RunAttempt("a-run"))
    root = remote_artifacts.root(choice.artifacts(settings), pipeline.name, "a-run")
    return Components(
        pipeline, backend, PipelineRunDirectory(folder / "home" / "runs" / "a-run"),
        PlaceholderFacts(job_name="a run", job_id="a-run", root=root),
        lambda *line: lines.append(line), threading.Event(),
        claims=choice.claims(backend, Home(folder / "home")), root=root,
    )  # fmt: skip


def test_artifacts_go_between_components_and_not_through_the_run(
    running: Running, tmp_path: Path
) -> None:
    pipeline = reading.read_bytes(compile_function(carried), "pipeline.yaml")
    (tmp_path / "source").write_text("words\n")
    lines: list[tuple[str, str]] = []
    components = _components(running, tmp_path, pipeline, lines)
    components.check()
    given = Artifact("source[0]", str(tmp_path / "source"), "system.Dataset")

    end = Execution(pipeline, Threads(components, 2), parallel=2, cancelled=threading.Event()).run(
        Bundle(artifacts={"source": given})
    )

    assert end.state == TaskState.SUCCEEDED, end.reason
    assert end.outputs.parameters == {"Output": "WORDS\n"}
    assert lines == [("make", "made")]
    sent = running.nas / "staging" / "artifacts" / "carried" / "a-run" / "make" / "data"
    assert (sent / "text").read_text() == "WORDS\n"
    assert not list((tmp_path / "home").rglob("text"))
    assert running.objects("Job") == running.objects("Pod") == []


@dsl.pipeline(
    name="shared",
    pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")),
)
def shared(source: dsl.Input[dsl.Dataset]):
    make(source=source)


def test_a_workspace_is_refused_before_anything_starts(running: Running, tmp_path: Path) -> None:
    pipeline = reading.read_bytes(compile_function(shared), "pipeline.yaml")

    with pytest.raises(BadInputError, match="The pipeline shared has a workspace") as caught:
        _components(running, tmp_path, pipeline, []).check()
    assert caught.value.code == "PlatformUnsupported"
