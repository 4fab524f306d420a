"""Every pipeline of the corpus is run, as processes, and hands on what it should."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import BadInputError
from infra.workloads import mounts as mounting
from pipelines import reading, validation
from pipelines.arguments import arguments
from tests.pipelines import corpus
from tests.pipelines.mutating import loaded, read
from tests.pipelines.running import Ran, run

pytestmark = pytest.mark.integration

RUN = [name for name in corpus.NAMES if corpus.module(name).OUTPUTS is not None]
# Other tests run these too: those below, or tests/e2e on the real stack.
_ELSEWHERE = {
    "adding", "claimed", "exit_handling", "given_names", "ignored_failure", "loops", "malformed",
    "one_of", "secrets", "shown",
}  # fmt: skip


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


def ran(name: str, folder: Path, environments: Path, **given: object) -> Ran:
    pipeline = reading.read_bytes(corpus.compiled(name), f"{name}.yaml")
    validation.check(pipeline)
    module = corpus.module(name)
    if getattr(module, "MOUNTS", False) and mounting.impossible():
        pytest.skip(f"mounts: {mounting.impossible()}")
    for config, held in getattr(module, "CONFIG_MAPS", {}).items():
        (folder / "configmaps" / config).mkdir(parents=True)
        for key, text in held.items():
            (folder / "configmaps" / config / key).write_text(text)
    asked = {**module.ARGUMENTS, **given}
    (folder / "kept").mkdir()
    placed = {
        key: value.replace("{folder}", str(folder / "kept")) if isinstance(value, str) else value
        for key, value in asked.items()
    }
    return run(
        pipeline, arguments(pipeline, placed), folder, environments=environments,
        secrets=getattr(module, "SECRETS", {}),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.soak] * (name in _ELSEWHERE)) for name in RUN],
)
def test_it_ends_as_it_should(name: str, tmp_path: Path, environments: Path) -> None:
    found = ran(name, tmp_path, environments)

    module = corpus.module(name)
    assert found.end.state == getattr(module, "STATE", "SUCCEEDED"), found.end.reason
    if found.end.state == "SUCCEEDED":
        assert dict(found.end.outputs.parameters) == module.OUTPUTS
    left = {path: str(node.state) for path, node in found.nodes.items()}
    assert not {"WAITING", "RUNNING"} & set(left.values()), left


def test_what_every_run_comes_to_and_cannot_run_here_is_refused_first(
    tmp_path: Path, environments: Path
) -> None:
    with pytest.raises(BadInputError) as caught:
        ran("containerized", tmp_path, environments)

    assert caught.value.code == "ImageNotRunnable"
    assert "shout needs its image registry.example/team/shout:1" in caught.value.message
    assert not (tmp_path / "tasks").exists()


def test_what_cannot_run_here_and_may_not_be_come_to_is_refused_there(
    tmp_path: Path, environments: Path
) -> None:
    documents = copy.deepcopy(loaded("containerized"))
    task = documents[0]["root"]["dag"]["tasks"]["shout"]
    task["triggerPolicy"] = {"condition": "inputs.parameter_values['text'] == 'loud'"}

    def states(text: str) -> dict[str, str]:
        (tmp_path / text).mkdir()
        pipeline = read(documents)
        given = arguments(pipeline, {"text": text})
        return run(pipeline, given, tmp_path / text, environments=environments).states

    assert states("soft") == {"shout": "SKIPPED"}
    assert states("loud") == {"shout": "FAILED"}


def test_an_exit_task_runs_though_what_it_waits_for_failed(
    tmp_path: Path, environments: Path
) -> None:
    found = ran("exit_handling", tmp_path, environments)

    assert found.end.state == "FAILED"
    assert "FAILED" in found.states.values()
    exit_tasks = {path: state for path, state in found.states.items() if "/" not in path}
    assert "SUCCEEDED" in exit_tasks.values()


def test_nodes_are_told_by_the_names_that_people_gave(tmp_path: Path, environments: Path) -> None:
    found = ran("given_names", tmp_path, environments)

    titles = {path: node.name for path, node in found.nodes.items() if path}
    assert titles["exit-handler-1"] == "guard"
    assert titles["exit-handler-1/for-loop-3/1/add-2"] == "per day"
    assert titles["exit-handler-1/for-loop-3/1/add-3"] == "add-3"


def test_one_branch_of_several_runs(tmp_path: Path, environments: Path) -> None:
    states = ran("one_of", tmp_path, environments).states

    assert "SKIPPED" in states.values()
    assert states["condition-branches-1"] == "SUCCEEDED"


def test_what_a_failed_task_is_needed_for_is_omitted(tmp_path: Path, environments: Path) -> None:
    found = ran("ignored_failure", tmp_path, environments)

    assert found.end.state == "FAILED"
    assert sorted(set(found.states.values())) == ["FAILED", "SUCCEEDED"]


def test_a_claim_is_gone_after_its_deletion(tmp_path: Path, environments: Path) -> None:
    found = ran("claimed", tmp_path, environments)

    assert found.states["deletepvc"] == "SUCCEEDED"
    assert list((tmp_path / "claims").iterdir()) == []
    created = found.nodes["createpvc"].outputs.parameters["name"]
    assert created.startswith("a-run-")
    assert created.endswith("-shared")


def test_what_only_a_setting_hands_on_is_waited_for(tmp_path: Path, environments: Path) -> None:
    written = yaml.safe_load_all(corpus.compiled("secrets"))
    spec, platform = written
    del spec["root"]["dag"]["tasks"]["lengths"]["dependentTasks"]
    pipeline = reading.read_bytes(yaml.safe_dump_all([spec, platform]).encode(), "p.yaml")

    found = run(
        pipeline, {"name": "first"}, tmp_path, environments=environments,
        secrets=corpus.module("secrets").SECRETS,
    )  # fmt: skip

    assert found.end.outputs.parameters == corpus.module("secrets").OUTPUTS


def test_a_setting_of_a_task_that_failed_or_was_skipped(
    tmp_path: Path, environments: Path
) -> None:
    def of(change: Callable[[dict[str, Any]], None], name: str) -> Ran:
        spec, platform = yaml.safe_load_all(corpus.compiled("secrets"))
        tasks = spec["root"]["dag"]["tasks"]
        tasks["lengths"].pop("dependentTasks")
        spec["root"].pop("outputDefinitions")
        spec["root"]["dag"].pop("outputs")
        change(tasks)
        pipeline = reading.read_bytes(yaml.safe_dump_all([spec, platform]).encode(), "p.yaml")
        (tmp_path / name).mkdir()
        given = {"name": "first"}
        return run(pipeline, given, tmp_path / name, environments=environments)

    def skipped(tasks: dict[str, Any]) -> None:
        tasks["echo"]["triggerPolicy"] = {"condition": "1 == 2"}

    def failed(tasks: dict[str, Any]) -> None:
        constant = {"runtimeValue": {"constant": "{{$.pipeline_x}}"}}
        tasks["echo"]["inputs"]["parameters"]["text"] = constant

    def regardless(tasks: dict[str, Any]) -> None:
        failed(tasks)
        tasks["lengths"]["triggerPolicy"] = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}

    assert of(skipped, "a").states == {"echo": "SKIPPED", "lengths": "SKIPPED"}
    assert of(failed, "b").states["lengths"] == "OMITTED"
    found = of(regardless, "c")
    assert found.states["lengths"] == "FAILED"
    assert "no value for a setting of Kubernetes: Output of echo" in found.nodes["lengths"].reason


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
