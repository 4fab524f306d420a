"""Every pipeline of the corpus is run, as processes, and hands on what it should."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from pipelines import reading, validation
from pipelines.arguments import arguments
from tests.pipelines import corpus
from tests.pipelines.mutating import loaded, read
from tests.pipelines.running import Ran, run

RUN = [name for name in corpus.NAMES if corpus.module(name).OUTPUTS is not None]


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


def ran(name: str, folder: Path, environments: Path, **given: object) -> Ran:
    pipeline = reading.read_bytes(corpus.compiled(name), f"{name}.yaml")
    validation.check(pipeline)
    asked = {**corpus.module(name).ARGUMENTS, **given}
    (folder / "kept").mkdir()
    placed = {
        key: value.replace("{folder}", str(folder / "kept")) if isinstance(value, str) else value
        for key, value in asked.items()
    }
    return run(pipeline, arguments(pipeline, placed), folder, environments=environments)


@pytest.mark.parametrize("name", RUN)
def test_it_ends_as_it_should(name: str, tmp_path: Path, environments: Path) -> None:
    found = ran(name, tmp_path, environments)

    module = corpus.module(name)
    assert found.end.state == getattr(module, "STATE", "SUCCEEDED"), found.end.reason
    if found.end.state == "SUCCEEDED":
        assert dict(found.end.outputs.parameters) == module.OUTPUTS
    left = {path: str(node.state) for path, node in found.nodes.items()}
    assert not {"WAITING", "RUNNING"} & set(left.values()), left


def test_an_exit_task_runs_though_what_it_waits_for_failed(
    tmp_path: Path, environments: Path
) -> None:
    found = ran("exit_handling", tmp_path, environments)

    assert found.end.state == "FAILED"
    assert "FAILED" in found.states.values()
    exit_tasks = {path: state for path, state in found.states.items() if "/" not in path}
    assert "SUCCEEDED" in exit_tasks.values()


def test_one_branch_of_several_runs(tmp_path: Path, environments: Path) -> None:
    states = ran("one_of", tmp_path, environments).states

    assert "SKIPPED" in states.values()
    assert states["condition-branches-1"] == "SUCCEEDED"


def test_what_a_failed_task_is_needed_for_is_omitted(tmp_path: Path, environments: Path) -> None:
    found = ran("ignored_failure", tmp_path, environments)

    assert found.end.state == "FAILED"
    assert sorted(set(found.states.values())) == ["FAILED", "SUCCEEDED"]


def test_a_malformed_output_is_told_and_not_tried_again(
    tmp_path: Path, environments: Path
) -> None:
    found = ran("malformed", tmp_path, environments)

    assert found.states == {"write-a-word": "FAILED", "add": "OMITTED"}
    told = "The task write-a-word has written a malformed output, number"
    assert told in found.nodes["write-a-word"].reason
    assert (tmp_path / "tasks" / "write-a-word" / "ran").read_text() == "\n"


def test_tasks_that_share_a_component_and_wait_only_by_their_inputs(
    tmp_path: Path, environments: Path
) -> None:
    documents = copy.deepcopy(loaded("adding"))
    second = documents[0]["root"]["dag"]["tasks"]["add-2"]
    second["componentRef"]["name"] = "comp-add"  # the compiler gives each task its own
    del second["dependentTasks"]
    pipeline = read(documents)
    validation.check(pipeline)

    found = run(pipeline, arguments(pipeline, {"a": 30}), tmp_path, environments=environments)

    assert found.end.outputs.parameters == {"Output": 37}
    assert sorted(one.name for one in (tmp_path / "tasks").iterdir()) == ["add", "add-2"]
