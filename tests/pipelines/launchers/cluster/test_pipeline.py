"""Whole pipelines, each of their components a Job."""

import threading
from pathlib import Path
from typing import Any

from kfp import dsl

from infra.home import Home
from infra.settings import Settings
from pipelines import reading, remotes
from pipelines.artifacts import Artifact, Bundle
from pipelines.components import Components
from pipelines.execution import Execution
from pipelines.launchers import choice
from pipelines.launchers.cluster.launcher import Attempt
from pipelines.place import Place
from pipelines.placeholders import Facts
from pipelines.states import TaskState
from tests.pipelines.corpus import compile_function
from tests.pipelines.launchers.cluster.conftest import Running
from tests.pipelines.running import Threads


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


def test_artifacts_go_between_components_and_not_through_the_run(
    running: Running, tmp_path: Path, monkeypatch: Any
) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("image: modelyard:1\nnas: {own: {server: nas.test, path: /export}}\n")
    settings = Settings(
        home=tmp_path / "home", pipeline_launcher="kubernetes", cluster=cluster,
        pipeline_staging_uri="nas://own:/staging",
    )  # fmt: skip
    launcher = choice.launcher(settings, Attempt("a-run"))
    pipeline = reading.read_bytes(compile_function(carried), "pipeline.yaml")
    place = Place(tmp_path / "home" / "runs" / "a-run")
    (tmp_path / "source").write_text("words\n")
    root = remotes.root(choice.artifacts(settings), pipeline.name, "a-run")
    lines: list[tuple[str, str]] = []
    components = Components(
        pipeline, launcher, place, Facts(job_name="a run", job_id="a-run", root=root),
        lambda *line: lines.append(line), threading.Event(),
        claims=choice.claims(launcher, Home(tmp_path / "home")), root=root,
    )  # fmt: skip
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
    assert not list(place.root.rglob("text"))
    assert running.objects("Job") == running.objects("Pod") == []
