"""Pipelines of Kubeflow's on the real stack."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from infra.workloads import mounts as mounting
from tests.e2e.stack import kill, wait_for
from tests.pipelines import corpus
from tests.pipelines.corpus.components import IMAGE, add

pytestmark = pytest.mark.e2e
needs_mounts = pytest.mark.skipif(bool(mounting.impossible()), reason="no mounts")


@dsl.component(base_image=IMAGE)
def note(folder: str, name: str, seconds: float = 0.0) -> str:
    """Leave a line for each time that it runs; wait for a file where it is told to."""
    import pathlib
    import time

    with pathlib.Path(folder, name).open("a") as file:
        file.write("ran\n")
    time.sleep(seconds)
    return name


@dsl.component(base_image=IMAGE)
def fail_until(path: str) -> str:
    import pathlib

    if not pathlib.Path(path).exists():
        raise RuntimeError("not yet")
    return "now"


@dsl.pipeline(name="half-way")
def half_way(folder: str, path: str) -> str:
    first = note(folder=folder, name="first")
    second = fail_until(path=path).after(first)
    return note(folder=folder, name=second.output).output


@dsl.pipeline(name="killed")
def killed(folder: str) -> int:
    with dsl.ParallelFor([f"n{n}" for n in range(15)], parallelism=3) as name:
        note(folder=folder, name=name, seconds=1.0)
    return add(a=1, b=2).output


@dsl.component(base_image=IMAGE)
def through_mounts() -> str:
    import pathlib

    pathlib.Path("/mnt/out/made").write_text("by a component")
    print("made", *pathlib.Path("/mnt/out").iterdir())
    return pathlib.Path("/mnt/data/given").read_text()


@dsl.pipeline(name="mounted")
def mounted() -> str:
    return through_mounts().output


@dsl.pipeline(name="late", pipeline_config=dsl.PipelineConfig(active_deadline_seconds=8))
def late(folder: str):
    first = note(folder=folder, name="first")
    note(folder=folder, name="second", seconds=600.0).after(first)


def written(folder, pipeline):
    path = folder / "pipeline.yaml"
    compiled = (
        corpus.compiled(pipeline)
        if isinstance(pipeline, str)
        else corpus.compile_function(pipeline)
    )
    path.write_bytes(compiled)
    return str(path)


def times(folder: Path):
    return {path.name: len(path.read_text().splitlines()) for path in folder.iterdir()}


def test_one_runs_in_the_pool_and_an_equal_task_is_not_run_again(stack, tmp_path):
    path = written(tmp_path, "adding")
    found = stack.do("pipeline", "run", path, "-p", "a=30", "--experiment", "pipelines")
    assert found["state"] == "COMPLETE", found
    assert found["outputs"] == {"Output": 37}
    assert [(task["name"], task["state"]) for task in found["tasks"]] == [
        ("add", "SUCCEEDED"), ("add-2", "SUCCEEDED"),
    ]  # fmt: skip

    again = stack.do("pipeline", "run", path, "-p", "a=30")
    assert again["outputs"] == {"Output": 37}
    assert [task["state"] for task in again["tasks"]] == ["CACHED", "CACHED"]
    anew = stack.do("pipeline", "run", path, "-p", "a=30", "--no-cache", "--nodes", "2")
    assert [task["state"] for task in anew["tasks"]] == ["SUCCEEDED", "SUCCEEDED"]
    assert "does not enforce resources.nodes." in anew["message"]
    shown = stack.show(found["flow_run_id"])
    assert (shown["flow"], shown["parameters"]["experiment"]) == ("pipeline-run", "pipelines")
    assert shown["links"]["graph"].endswith(f"/runs/{found['flow_run_id']}")


def test_one_runs_in_this_process(stack, tmp_path):
    path, module = written(tmp_path, "loops"), corpus.module("loops")
    (given,) = (f"{name}={json.dumps(value)}" for name, value in module.ARGUMENTS.items())
    found = stack.do("pipeline", "run", path, "-p", given, "--local")
    assert found["state"] == "COMPLETE", found
    assert found["outputs"] == module.OUTPUTS


@needs_mounts
def test_each_run_has_a_claim_of_its_own_and_leaves_none(stack, tmp_path):
    path = written(tmp_path, "claimed")
    for _ in range(2):
        found = stack.do("pipeline", "run", path)
        assert found["state"] == "COMPLETE", found
        assert found["outputs"] == corpus.module("claimed").OUTPUTS
        states = {task["name"]: task["state"] for task in found["tasks"]}
        assert {states[name] for name in ("createpvc", "leave", "take", "deletepvc")} == {
            "SUCCEEDED"
        }
        assert list((stack.home / "claims").iterdir()) == []


@needs_mounts
def test_components_find_folders_of_a_nas_and_the_log_is_copied(stack, tmp_path):
    nas, logs = stack.home.with_name("nas"), tmp_path / "logs"
    for name in ("data", "out"):
        (nas / name).mkdir()
    (nas / "data" / "given").write_text("word")

    found = stack.do(
        "pipeline", "run", written(tmp_path, mounted), "--mount", "data=nas://n1:/data",
        "--mount", "out=nas://n1:/out", "--log-uri", str(logs), "--parallel", "1",
    )  # fmt: skip

    assert found["outputs"] == {"Output": "word"}, found
    assert (nas / "out" / "made").read_text() == "by a component"
    (log,) = logs.iterdir()
    assert log.name == f"{found['flow_run_id']}.log"
    assert "through-mounts | made /mnt/out/made" in log.read_text().splitlines()
    assert not Path("/mnt/data").exists()


@needs_mounts
def test_secrets_are_blocks_of_prefect_s_and_told_nowhere(stack, tmp_path):
    blocks = corpus.module("secrets").SECRETS
    blocks = {"first": blocks["first"], "second": json.dumps(blocks["second"])}
    code = (
        "from flows.connection import connected\n"
        "from prefect.blocks.system import Secret\n"
        "with connected():\n"
        f"    for name, value in {blocks!r}.items():\n"
        "        Secret(value=value).save(name)\n"
    )
    stack.execute(code)

    found = stack.do("pipeline", "run", written(tmp_path, "secrets"), "-p", "name=first")

    assert found["state"] == "COMPLETE", found
    assert found["outputs"] == corpus.module("secrets").OUTPUTS
    assert "pass5" not in json.dumps(found)
    folder = stack.home / "runs" / found["flow_run_id"]
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not [text for text in texts if b"pass5" in text]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-p", "a=many"), "ArgumentsInvalid"),
        (("-p", "a=1", "--mount", "data=/tmp"), "MountInvalid"),
    ],
)
def test_what_cannot_run_is_refused_and_nothing_is_started(stack, tmp_path, arguments, code):
    before = len(stack.do("runs", "list"))
    answer = stack.ask("pipeline", "run", written(tmp_path, "adding"), *arguments)
    assert answer.error["code"] == code
    assert len(stack.do("runs", "list")) == before


def test_a_retry_goes_on_from_what_failed(stack, tmp_path):
    folder, gate = tmp_path / "notes", tmp_path / "gate"
    folder.mkdir()
    path = written(tmp_path, half_way)
    given = ("-p", f"folder={folder}", "-p", f"path={gate}")
    answer = stack.ask("pipeline", "run", path, *given)
    assert answer.code == 1
    found = answer.json
    assert found["state"] == "FAIL PIPELINE RUN"
    assert "not yet" in found["message"]
    states = {task["name"]: task["state"] for task in found["tasks"]}
    assert states == {"note": "SUCCEEDED", "fail-until": "FAILED", "note-2": "OMITTED"}

    gate.touch()
    stack.do("runs", "retry", found["flow_run_id"])
    shown = stack.wait_for_state(found["flow_run_id"], "COMPLETE")
    assert shown["result"]["outputs"] == {"Output": "now"}
    assert times(folder) == {"first": 1, "now": 1}


def test_one_that_takes_longer_than_its_pipeline_allows_fails(stack, tmp_path):
    answer = stack.ask("pipeline", "run", written(tmp_path, late), "-p", f"folder={tmp_path}")

    found = answer.json
    assert (answer.code, found["state"]) == (1, "FAIL PIPELINE RUN")
    assert "exceeded the 8 s" in found["message"]
    states = {task["name"]: task["state"] for task in found["tasks"]}
    assert states["note-2"] == "CANCELLED"
    assert stack.show(found["flow_run_id"])["result"]["outputs"] == {}


def test_killed_and_retried_nothing_that_had_ended_runs_again(stack, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    path, worker = written(tmp_path, killed), stack.parts()["worker"]["pid"]
    run = stack.do(
        "run", "pipeline-run", "-p", f"pipeline={path}", "-p", f"arguments.folder={folder}",
        "-p", "cache=false",
    )["flow_run_id"]  # fmt: skip
    wait_for(lambda: len(times(folder)) >= 5, 60, "some have run")
    kill(worker)
    stack.wait_for_state(run, "FAIL PIPELINE RUN")
    before = times(folder)

    stack.do("runs", "retry", run)
    shown = stack.wait_for_state(run, "COMPLETE", timeout=90)
    assert shown["result"]["outputs"] == {"Output": 3}
    after = times(folder)
    assert len(after) == 15
    again = {name for name in before if after[name] > before[name]}
    assert len(again) <= 3  # what ran when it was killed
    assert max(after.values()) <= 2


def test_an_uploaded_one_is_run_by_name_by_schedule_and_after_another_version(stack, tmp_path):
    path = written(tmp_path, "adding")
    name = "uploaded"
    assert stack.do("pipeline", "upload", path, "--name", name)["state"] == "ACTIVE"
    inputs = {one["name"]: one for one in stack.do("pipeline", "show", name)["inputs"]}
    assert (inputs["a"]["type"], inputs["a"]["required"]) == ("integer", True)
    (stack.home / name).touch()  # a file that is called as an uploaded one is not meant
    found = stack.do("pipeline", "run", name, "-p", "a=1")
    assert found["outputs"] == {"Output": 8}
    shown = stack.show(found["flow_run_id"])
    assert shown["parameters"]["pipeline"] == f"{name}:1"
    copied = stack.do("runs", "copy", found["flow_run_id"], "-p", "arguments.a=2")["flow_run_id"]
    assert stack.wait_for_state(copied, "COMPLETE")["result"]["outputs"] == {"Output": 9}

    stack.do("schedule", "create", name, name, "--interval", "3600", "-p", "arguments.a=5")
    refused = stack.ask("pipeline", "delete", name)
    assert refused.error["code"] == "HasSchedule"
    stack.do("schedule", "trigger", name)
    scheduled = wait_for(
        lambda: next((row["run"] for row in stack.do("schedule", "show", name)["slots"]), None),
        60,
        "the schedule's run",
    )
    assert stack.wait_for_state(scheduled, "COMPLETE")["result"]["outputs"] == {"Output": 12}
    assert stack.show(scheduled)["parameters"]["pipeline"] == f"{name}:1"
    stack.do("pipeline", "rename", name, f"{name} first")
    assert stack.do("schedule", "show", name)["deployment"] == f"{name} first"
    copied = stack.do("runs", "copy", found["flow_run_id"])["flow_run_id"]
    assert stack.wait_for_state(copied, "COMPLETE")["parameters"]["pipeline"] == f"{name} first:1"
    stack.do("pipeline", "rename", f"{name} first", name)
    stack.do("schedule", "delete", name)

    other = tmp_path / "other"
    other.mkdir()
    again = stack.do("pipeline", "upload", written(other, "ordered"), "--name", name)
    assert again["version"] == 2
    assert stack.do("pipeline", "run", f"{name}:1", "-p", "a=1")["outputs"] == {"Output": 8}
    assert [one["version"] for one in stack.do("pipeline", "versions", name)] == [2, 1]
    stack.do("pipeline", "download", f"{name}:1", "-o", tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == (tmp_path / "pipeline.yaml").read_bytes()
    assert stack.do("pipeline", "delete", name)["deleted"]
    (stack.home / name).unlink()
    assert stack.ask("pipeline", "run", name).error["code"] == "PipelineUnknown"


def test_kubeflows_macros_are_filled_in_once(stack, tmp_path):
    @dsl.component(base_image=IMAGE)
    def say(text: str, path: str) -> str:
        import pathlib

        if not pathlib.Path(path).exists():
            raise RuntimeError("not yet")
        return text

    @dsl.pipeline(name="macros")
    def macros(text: str, path: str) -> str:
        return say(text=text, path=path).output

    path = written(tmp_path, macros)
    stack.do("pipeline", "upload", path, "--name", "macros")
    there = tmp_path / "there"
    text = "[[RunUUID]] [[Index]] [[ScheduledTime.2006-01-02]] [[CurrentTime.15:04:05]]"
    given = {"text": text, "path": str(there)}
    stack.do(
        "schedule", "create", "macros", "macros", "--interval", "3600",
        "-p", f"arguments={json.dumps(given)}",
    )  # fmt: skip
    stack.do("schedule", "trigger", "macros")
    run = wait_for(
        lambda: next(
            (row["run"] for row in stack.do("schedule", "show", "macros")["slots"]), None
        ),
        60,
        "the schedule's run",
    )
    failed = stack.wait_for_state(run, "FAIL PIPELINE RUN")
    there.touch()
    stack.do("runs", "retry", run)
    found = stack.wait_for_state(run, "COMPLETE")
    slot = found["slot"]
    said = found["result"]["outputs"]["Output"].split()
    assert said[:3] == [run, "1", slot[:10]]
    assert said[3] == failed["created"][11:19]
    stack.do("schedule", "delete", "macros")
