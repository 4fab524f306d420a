import copy
from typing import Any

import pytest

from pipelines import validation
from pipelines.faults import MOST_TOLD, PipelineInvalidError
from tests.pipelines.mutating import drop, faults_of, loaded, read, set_at

_ROOT = "root/dag/tasks"


class TestPlatform:
    _PLACE = "platforms.kubernetes.deploymentSpec.executors"

    @pytest.mark.parametrize(
        ("path", "value", "place", "told"),
        [
            ("exec-add/imagePullPolicy", "Sometimes", ".exec-add.imagePullPolicy", "'Sometimes'"),
            ("exec-add/typo", 1, ".exec-add.typo", "no such setting"),
            (
                "exec-add/secretAsVolume/0/mountPath",
                "relative",
                ".exec-add.secretAsVolume[0].mountPath",
                "absolute",
            ),
            (
                "exec-echo/secretAsEnv/0/secretNameParameter/componentInputParameter",
                "x",
                ".exec-echo",
                "no input 'x'",
            ),
            (
                "exec-echo/configMapAsEnv/0/configMapNameParameter/taskOutputParameter/"
                "producerTask",
                "x",
                ".exec-echo",
                "no task 'x'",
            ),
            (
                "exec-echo/configMapAsEnv/0/configMapNameParameter/taskOutputParameter/"
                "outputParameterKey",
                "x",
                ".exec-echo",
                "no output parameter 'x'",
            ),
            ("exec-none", {}, ".exec-none", "no such executor"),
        ],
    )
    def test_faults(self, path: str, value: Any, place: str, told: str) -> None:
        path = f"platforms/kubernetes/deploymentSpec/executors/{path}"

        found = faults_of("kubernetes", set_at(path, value), platform=True)

        assert [fault.place for fault in found] == [self._PLACE + place]
        assert told in str(found[0])

    def test_a_circle_through_a_setting(self) -> None:
        documents = copy.deepcopy(loaded("kubernetes"))
        tasks = documents[0]["root"]["dag"]["tasks"]
        tasks["name-secret"]["dependentTasks"] = ["echo"]
        tasks["echo"].pop("dependentTasks", None)

        found = validation.faults(read(documents))

        assert [fault.problem for fault in found] == [
            "They wait for each other: echo → name-secret → echo."
        ]

    def test_a_workspace_without_a_size(self) -> None:
        path = "platforms/kubernetes/pipelineConfig/workspace/size"

        found = faults_of("workspace", set_at(path, "big"), platform=True)

        assert [fault.place for fault in found] == [
            "platforms.kubernetes.pipelineConfig.workspace.size"
        ]

    def test_a_deadline_below_zero(self) -> None:
        path = "platforms/kubernetes/pipelineConfig/activeDeadlineSeconds"

        found = faults_of("workspace", set_at(path, -5), platform=True)

        assert "activeDeadlineSeconds" in found[0].place

    def test_no_workspace(self) -> None:
        config = "platforms/kubernetes/pipelineConfig/workspace"

        found = faults_of("workspace", drop(config), platform=True)

        assert len(found) == 2
        assert all("workspace" in fault.problem for fault in found)


class TestCheck:
    def test_all_faults_are_told_at_once(self) -> None:
        documents = copy.deepcopy(loaded("adding"))
        drop("deploymentSpec/executors/exec-add")(documents[0])
        set_at(f"{_ROOT}/add/dependentTasks", ["nobody", "add-2"])(documents[0])

        with pytest.raises(PipelineInvalidError) as caught:
            validation.check(read(documents))

        assert caught.value.code == "PipelineInvalid"
        assert {fault.place for fault in caught.value.faults} == {
            "components.comp-add.executorLabel",
            "root.dag.tasks.add.dependentTasks[0]",
            "root.dag.tasks",
        }
        assert all(fault.place in caught.value.message for fault in caught.value.faults)
        assert "The pipeline adding has 3 faults" in caught.value.message

    def test_only_so_many_are_told(self) -> None:
        documents = copy.deepcopy(loaded("adding"))
        missing = [f"none-{number}" for number in range(MOST_TOLD + 7)]
        set_at(f"{_ROOT}/add/dependentTasks", missing)(documents[0])

        with pytest.raises(PipelineInvalidError) as caught:
            validation.check(read(documents))

        assert len(caught.value.faults) == MOST_TOLD + 7
        assert len(caught.value.message.splitlines()) == MOST_TOLD + 2
        assert "7 more" in caught.value.message

    def test_constants_are_not_told(self) -> None:
        secret = {"runtimeValue": {"constant": "hunter2"}}

        found = faults_of("adding", set_at(f"{_ROOT}/add/inputs/parameters/a", secret))

        assert found
        assert "hunter2" not in "".join(map(str, found))


class TestSize:
    def test_a_pipeline_that_doubles_itself_over_and_over(self) -> None:
        documents = copy.deepcopy(loaded("adding"))
        components = documents[0]["components"]
        for level in range(40):
            below = f"comp-{level + 1}" if level < 39 else "comp-add"
            tasks = {
                key: {
                    "componentRef": {"name": below},
                    "inputs": {"parameters": {"a": {"runtimeValue": {"constant": 1.0}}}},
                }
                for key in ("one", "two")
            }
            declared = {"parameters": {"a": {"parameterType": "NUMBER_INTEGER"}}}
            components[f"comp-{level}"] = {"dag": {"tasks": tasks}, "inputDefinitions": declared}
        documents[0]["root"]["dag"]["tasks"]["add"]["componentRef"]["name"] = "comp-0"

        found = validation.faults(read(documents))

        assert any(fault.place == "root" and "tasks" in fault.problem for fault in found)

    def test_dags_that_are_nested_too_deep(self) -> None:
        documents = copy.deepcopy(loaded("ordered"))
        components = documents[0]["components"]
        for level in range(3000):
            below = {"componentRef": {"name": f"comp-{level + 1}"}}
            components[f"comp-{level}"] = {"dag": {"tasks": {"one": below}}}
        components["comp-3000"] = {"dag": {"tasks": {}}}
        documents[0]["root"]["dag"]["tasks"]["deep"] = {"componentRef": {"name": "comp-0"}}

        found = validation.faults(read(documents))

        assert [fault.place for fault in found] == ["root"]
        assert "100 levels" in found[0].problem

    def test_components_that_run_each_other(self) -> None:
        found = faults_of(
            "nested",
            set_at("components/comp-double/dag/tasks/add/componentRef/name", "comp-twice"),
        )

        assert any("runs itself" in fault.problem for fault in found)

    def test_a_long_chain_of_tasks(self) -> None:
        documents = copy.deepcopy(loaded("ordered"))
        tasks = documents[0]["root"]["dag"]["tasks"]
        for number in range(2000):
            task = copy.deepcopy(tasks["add"])
            task["dependentTasks"] = [f"chain-{number - 1}"] if number else []
            tasks[f"chain-{number}"] = task

        assert validation.faults(read(documents)) == []
