import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from pipelines import reading, validation
from pipelines.faults import MOST_TOLD, Fault, PipelineInvalidError
from pipelines.pipeline import Pipeline
from tests.pipelines import corpus

Documents = list[dict[str, Any]]


@functools.cache
def _loaded(name: str) -> Documents:
    return list(yaml.safe_load_all(corpus.compiled(name)))


def _read(documents: Documents) -> Pipeline:
    return reading.read_bytes(yaml.safe_dump_all(documents).encode(), "p.yaml")


def _at(data: Any, path: str) -> tuple[Any, Any]:
    *above, last = path.split("/")
    for part in above:
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data, int(last) if isinstance(data, list) else last


def _set(path: str, value: Any) -> Callable[[dict], None]:
    def change(spec: dict) -> None:
        there, last = _at(spec, path)
        there[last] = value

    return change


def _drop(path: str) -> Callable[[dict], None]:
    def change(spec: dict) -> None:
        there, last = _at(spec, path)
        del there[last]

    return change


def _faults(name: str, *changes: Callable[[dict], None], platform: bool = False) -> list[Fault]:
    documents = copy.deepcopy(_loaded(name))
    for change in changes:
        change(documents[1 if platform else 0])
    return validation.faults(_read(documents))


_ROOT = "root/dag/tasks"
_CONTAINER = "deploymentSpec/executors/exec-add/container"


class TestSound:
    @pytest.mark.parametrize("name", corpus.NAMES)
    def test_what_the_compiler_writes_has_no_faults(self, name: str) -> None:
        validation.check(_read(_loaded(name)))

    def test_what_no_task_reaches_is_not_looked_at(self) -> None:
        unused = {"executorLabel": "exec-none"}

        assert _faults("adding", lambda spec: spec["components"].update(other=unused)) == []

    def test_a_loop_may_name_its_own_item(self) -> None:
        own = {"componentInputParameter": "tens-loop-item"}
        inputs = f"{_ROOT}/for-loop-1/inputs/parameters/pipelinechannel--tens-loop-item"

        assert _faults("nested_loops", _set(inputs, own)) == []

    def test_settings_of_the_compiler_are_no_unknown_inputs(self) -> None:
        given = {"runtimeValue": {"constant": "image"}}
        inputs = f"{_ROOT}/add/inputs/parameters"

        assert _faults("adding", _set(f"{inputs}/base_image", given)) == []

    def test_braces_of_other_languages_stay(self) -> None:
        value = {"runtimeValue": {"constant": "{{$.Values.x}} {{$}} {{x}}"}}

        assert _faults("ordered", _set(f"{_ROOT}/echo/inputs/parameters/text", value)) == []


# A pipeline of the corpus, what is changed in it, where the fault is, and a part of what it says.
_CASES: list[tuple[str, Callable[[dict], None], str, str]] = [
    # Components and executors
    ("adding", _drop("components/comp-add"),
     "root.dag.tasks.add.componentRef.name", "There is no component 'comp-add'."),
    ("adding", _drop(f"{_ROOT}/add/componentRef"),
     "root.dag.tasks.add.componentRef.name", "names no component"),
    ("adding", _drop("deploymentSpec/executors/exec-add"),
     "components.comp-add.executorLabel", "There is no executor 'exec-add'. There is: exec-add-2"),
    ("adding", _drop("components/comp-add/executorLabel"),
     "components.comp-add", "neither a dag nor an executorLabel"),
    ("adding", _set("deploymentSpec/executors/exec-add", {}),
     "deploymentSpec.executors.exec-add", "empty"),
    ("adding", _set("deploymentSpec/executors/exec-add", {"resolver": {}}),
     "deploymentSpec.executors.exec-add.resolver", "resolver"),
    ("adding", _set("deploymentSpec/executors/exec-add", {"customJob": {}}),
     "deploymentSpec.executors.exec-add.customJob", "custom job"),
    ("adding", _drop(f"{_CONTAINER}/image"),
     "deploymentSpec.executors.exec-add.container.image", "no image"),
    ("adding", _set(f"{_CONTAINER}/lifecycle", {"preCacheCheck": {}}),
     "deploymentSpec.executors.exec-add.container.lifecycle", "not run"),
    ("adding", _set(f"{_CONTAINER}/env", [{"name": "A=B", "value": "x"}]),
     "deploymentSpec.executors.exec-add.container.env[0].name", "A=B"),
    ("adding", _set(f"{_CONTAINER}/args/1", "{{$.inputs.unknown}}"),
     "deploymentSpec.executors.exec-add.container.args[1]", "{{$.inputs.unknown}}"),
    ("adding", _set(f"{_CONTAINER}/args/1", '{"Concat": 3}'),
     "deploymentSpec.executors.exec-add.container.args[1]", "Concat"),
    ("adding", _set(f"{_CONTAINER}/args/1", "{{$.inputs.parameters['aa']}}"),
     "deploymentSpec.executors.exec-add.container.args[1]", "no input parameter 'aa'"),
    ("adding", _set(f"{_CONTAINER}/args/1", "{{$.outputs.artifacts['x'].path}}"),
     "deploymentSpec.executors.exec-add.container.args[1]", "no output artifact 'x'"),
    ("adding", _set(f"{_CONTAINER}/args/1", "{{$.workspace_path}}"),
     "deploymentSpec.executors.exec-add.container.args[1]", "workspace"),
    ("resources", _set(f"{_CONTAINER}/resources/resourceCpuLimit", "much"),
     "deploymentSpec.executors.exec-add.container.resources.resourceCpuLimit", "'much'"),
    ("resources", _set(f"{_CONTAINER}/resources/resourceMemoryLimit", "-1Gi"),
     "deploymentSpec.executors.exec-add.container.resources.resourceMemoryLimit", "'-1Gi'"),
    ("resources", _set(f"{_CONTAINER}/resources/memoryRequest", -1.0),
     "deploymentSpec.executors.exec-add.container.resources.memoryRequest", "below 0"),
    ("accelerators", _set(f"{_CONTAINER}/resources/accelerator/resourceCount", "1.5"),
     "deploymentSpec.executors.exec-add.container.resources.accelerator.resourceCount", "whole"),
    ("importing", _drop("deploymentSpec/executors/exec-importer/importer/artifactUri"),
     "deploymentSpec.executors.exec-importer.importer.artifactUri", "no address"),
    ("importing", _set("deploymentSpec/executors/exec-importer-2/importer/artifactUri",
                       {"runtimeParameter": "url"}),
     "deploymentSpec.executors.exec-importer-2.importer.artifactUri", "no input 'url'"),
    ("importing", _set("deploymentSpec/executors/exec-importer/importer/downloadToWorkspace",
                       True),
     "deploymentSpec.executors.exec-importer.importer.downloadToWorkspace", "workspace"),
    ("importing", _drop("components/comp-importer/outputDefinitions"),
     "deploymentSpec.executors.exec-importer.importer", "one output artifact"),
    # Declarations
    ("adding", _set("components/comp-add/inputDefinitions/parameters/b/defaultValue", "one"),
     "components.comp-add.inputDefinitions.parameters.b.defaultValue", "a whole number is wanted"),
    ("adding", _set("root/inputDefinitions/parameters/b/defaultValue", 4.5),
     "root.inputDefinitions.parameters.b.defaultValue", "the number 4.5"),
    ("adding", _set("root/inputDefinitions/parameters/b/literals", [1.0, 2.0]),
     "root.inputDefinitions.parameters.b.defaultValue", "1, 2"),
    ("adding", _set("components/comp-add/inputDefinitions/parameters/b/parameterType", 99),
     "components.comp-add.inputDefinitions.parameters.b.parameterType", "99"),
    ("adding", _set("components/comp-add/outputDefinitions/parameters/..",
                    {"parameterType": "STRING"}),
     "components.comp-add.outputDefinitions.parameters...", "'..'"),
    ("artifacts", _set("components/comp-write/outputDefinitions/parameters",
                       {"data": {"parameterType": "STRING"}}),
     "components.comp-write.outputDefinitions.artifacts.data", "as well"),
    # What tasks are given
    ("adding", _set(f"{_ROOT}/add-2/inputs/parameters/a/taskOutputParameter/producerTask", "ad"),
     "root.dag.tasks.add-2.inputs.parameters.a", "no task 'ad' in this DAG. There is: add"),
    ("adding", _set(f"{_ROOT}/add-2/inputs/parameters/a/taskOutputParameter/outputParameterKey",
                    "out"),
     "root.dag.tasks.add-2.inputs.parameters.a", "add has no output parameter 'out'. There is: O"),
    ("adding", _set(f"{_ROOT}/add/inputs/parameters/a/componentInputParameter", "x"),
     "root.dag.tasks.add.inputs.parameters.a", "root has no input parameter 'x'. There is: a, b."),
    ("adding", _set(f"{_ROOT}/add/inputs/parameters/a",
                    {"runtimeValue": {"runtimeParameter": "x"}}),
     "root.dag.tasks.add.inputs.parameters.a", "no input parameter 'x'"),
    ("adding", _set(f"{_ROOT}/add/inputs/parameters/a", {}),
     "root.dag.tasks.add.inputs.parameters.a", "Nothing is given"),
    ("adding", _set(f"{_ROOT}/add/inputs/parameters/a", {"runtimeValue": {}}),
     "root.dag.tasks.add.inputs.parameters.a", "runtimeValue is empty"),
    ("adding", _drop(f"{_ROOT}/add/inputs/parameters/a"),
     "root.dag.tasks.add.inputs.parameters.a", "is not given it"),
    ("adding", _set(f"{_ROOT}/add/inputs/parameters/c", {"componentInputParameter": "a"}),
     "root.dag.tasks.add.inputs.parameters.c", "comp-add has no such parameter"),
    ("adding", _set(f"{_ROOT}/add/inputs/parameters/a", {"runtimeValue": {"constant": "x"}}),
     "root.dag.tasks.add.inputs.parameters.a.runtimeValue.constant", "a text, where a whole"),
    ("adding", _set(f"{_ROOT}/add/inputs/parameters/a", {"runtimeValue": {"constant": None}}),
     "root.dag.tasks.add.inputs.parameters.a.runtimeValue.constant", "It is null"),
    ("adding", _set("root/inputDefinitions/parameters/a/parameterType", "STRING"),
     "root.dag.tasks.add.inputs.parameters.a", "It is given a text, where a whole number is"),
    ("ordered", _set(f"{_ROOT}/echo/inputs/parameters/text",
                     {"runtimeValue": {"constant": "{{$.pipeline_unknown}}"}}),
     "root.dag.tasks.echo.inputs.parameters.text.runtimeValue.constant", "pipeline_unknown"),
    ("ordered", _set(f"{_ROOT}/echo/inputs/parameters/text",
                     {"runtimeValue": {"constant": "a {{$.inputs.parameters['x']}}"}}),
     "root.dag.tasks.echo.inputs.parameters.text.runtimeValue.constant", "no input parameter 'x'"),
    ("ordered", _set(f"{_ROOT}/echo/inputs/parameters/text",
                     {"runtimeValue": {"constant": "{{$.workspace_path}}/a"}}),
     "root.dag.tasks.echo.inputs.parameters.text.runtimeValue.constant", "workspace"),
    ("loop_fields", _set("components/comp-for-loop-2/dag/tasks/echo/inputs/parameters/text/"
                         "parameterExpressionSelector", "parseJson(string_value)["),
     "components.comp-for-loop-2.dag.tasks.echo.inputs.parameters.text"
     ".parameterExpressionSelector", "cannot be read"),
    ("artifacts", _drop(f"{_ROOT}/train/inputs/artifacts"),
     "root.dag.tasks.train.inputs.artifacts.data", "is not given it"),
    ("artifacts", _set(f"{_ROOT}/train/inputs/artifacts/data/taskOutputArtifact/producerTask",
                       "w"),
     "root.dag.tasks.train.inputs.artifacts.data", "There is no task 'w'"),
    ("artifacts", _set(f"{_ROOT}/train/inputs/artifacts/data/taskOutputArtifact/outputArtifactKey",
                       "x"),
     "root.dag.tasks.train.inputs.artifacts.data", "write has no output artifact 'x'"),
    ("artifacts", _set(f"{_ROOT}/train/inputs/artifacts/data", {"componentInputArtifact": "x"}),
     "root.dag.tasks.train.inputs.artifacts.data", "root has no input artifact 'x'"),
    ("artifacts", _set(f"{_ROOT}/train/inputs/artifacts/data", {}),
     "root.dag.tasks.train.inputs.artifacts.data", "Nothing is given"),
    ("artifacts", _set("components/comp-train/inputDefinitions/artifacts/data/artifactType/"
                       "schemaTitle", "system.Model"),
     "root.dag.tasks.train.inputs.artifacts.data", "a system.Dataset, where a system.Model is"),
    ("artifacts", _set("components/comp-train/inputDefinitions/artifacts/data/artifactType/"
                       "schemaVersion", "1.0.0"),
     "root.dag.tasks.train.inputs.artifacts.data", "a system.Dataset, where"),
    ("artifacts", _set("components/comp-train/inputDefinitions/artifacts/data/isArtifactList",
                       True),
     "root.dag.tasks.train.inputs.artifacts.data", "one artifact, where a list of artifacts"),
    ("artifacts", _set(f"{_ROOT}/write/inputs/parameters/data",
                       {"componentInputParameter": "text"}),
     "root.dag.tasks.write.inputs.parameters.data", "no such parameter"),
    ("artifacts", _set(f"{_ROOT}/train/inputs/parameters",
                       {"data": {"componentInputParameter": "text"}}),
     "root.dag.tasks.train.inputs.parameters.data", "has it as an artifact"),
    # Order
    ("ordered", _set(f"{_ROOT}/echo-2/dependentTasks/0", "ad"),
     "root.dag.tasks.echo-2.dependentTasks[0]", "There is no task 'ad'"),
    ("ordered", _set(f"{_ROOT}/add/dependentTasks", ["echo-2"]),
     "root.dag.tasks", "add → echo-2 → add"),
    ("ordered", _set(f"{_ROOT}/add/dependentTasks", ["add"]), "root.dag.tasks", "add → add"),
    ("adding", _set(f"{_ROOT}/add/inputs/parameters/b",
                    {"taskOutputParameter": {"producerTask": "add-2",
                                             "outputParameterKey": "Output"}}),
     "root.dag.tasks", "add → add-2 → add"),
    ("nested", _set("components/comp-double/dag/tasks/add/componentRef/name", "comp-double"),
     "components.comp-double", "It runs itself: comp-double → comp-double."),
    # Loops
    ("loops", _drop(f"{_ROOT}/for-loop-2/parameterIterator/itemInput"),
     "root.dag.tasks.for-loop-2.parameterIterator.itemInput", "missing"),
    ("loops", _set(f"{_ROOT}/for-loop-2/parameterIterator/itemInput", "x"),
     "root.dag.tasks.for-loop-2.parameterIterator.itemInput", "no input 'x'"),
    ("loops", _set(f"{_ROOT}/for-loop-2/parameterIterator/items/raw", "{}"),
     "root.dag.tasks.for-loop-2.parameterIterator.items.raw", "no list"),
    ("loops", _set(f"{_ROOT}/for-loop-2/parameterIterator/items/raw", "[1"),
     "root.dag.tasks.for-loop-2.parameterIterator.items.raw", "no list"),
    ("loops", _set(f"{_ROOT}/for-loop-2/parameterIterator/items", {}),
     "root.dag.tasks.for-loop-2.parameterIterator.items", "no items"),
    ("loops", _set(f"{_ROOT}/for-loop-2/iteratorPolicy/parallelismLimit", -1),
     "root.dag.tasks.for-loop-2.iteratorPolicy.parallelismLimit", "below 0"),
    ("nested_loops", _set(f"{_ROOT}/for-loop-1/parameterIterator/items/inputParameter", "x"),
     "root.dag.tasks.for-loop-1.parameterIterator.items.inputParameter", "no input 'x'"),
    ("artifact_loop", _set(f"{_ROOT}/for-loop-1/artifactIterator/items/inputArtifact", "x"),
     "root.dag.tasks.for-loop-1.artifactIterator.items.inputArtifact", "no input 'x'"),
    ("artifact_loop", _set(f"{_ROOT}/for-loop-1/artifactIterator/itemInput", "x"),
     "root.dag.tasks.for-loop-1.artifactIterator.itemInput", "no input 'x'"),
    # Conditions and policies
    ("conditions", _set(f"{_ROOT}/condition-7/triggerPolicy/condition", "1 =="),
     "root.dag.tasks.condition-7.triggerPolicy.condition", ""),
    ("conditions", _set(f"{_ROOT}/condition-7/triggerPolicy/condition",
                        "inputs.parameter_values['x'] == 'y'"),
     "root.dag.tasks.condition-7.triggerPolicy.condition", "no input 'x'"),
    ("retrying", _set(f"{_ROOT}/third-time/retryPolicy/maxRetryCount", -1),
     "root.dag.tasks.third-time.retryPolicy.maxRetryCount", "below 0"),
    ("retrying", _set(f"{_ROOT}/third-time/retryPolicy/backoffDuration", "-1s"),
     "root.dag.tasks.third-time.retryPolicy.backoffDuration", "below 0"),
    ("retrying", _set(f"{_ROOT}/third-time/retryPolicy/backoffMaxDuration", "-1s"),
     "root.dag.tasks.third-time.retryPolicy.backoffMaxDuration", "below 0"),
    ("retrying", _set(f"{_ROOT}/third-time/retryPolicy/backoffFactor", -2.0),
     "root.dag.tasks.third-time.retryPolicy.backoffFactor", "below 0"),
    ("exit_handling", _drop(f"{_ROOT}/tell/triggerPolicy"),
     "root.dag.tasks.tell.inputs.parameters.status.taskFinalStatus", "however others end"),
    ("exit_handling", _set(f"{_ROOT}/tell/triggerPolicy/strategy", 9),
     "root.dag.tasks.tell.triggerPolicy.strategy", ""),
    ("exit_handling", _set(f"{_ROOT}/tell/inputs/parameters/status/taskFinalStatus/producerTask",
                           "x"),
     "root.dag.tasks.tell.inputs.parameters.status", "There is no task 'x'"),
    ("exit_handling", _set("components/comp-tell/inputDefinitions/parameters/status/parameterType",
                           "BOOLEAN"),
     "root.dag.tasks.tell.inputs.parameters.status", "true or false is wanted"),
    # What DAGs hand on
    ("adding", _set("root/dag/outputs/parameters/Output/valueFromParameter/producerSubtask", "x"),
     "root.dag.outputs.parameters.Output.valueFromParameter.producerSubtask", "no task 'x'"),
    ("adding", _set("root/dag/outputs/parameters/Output/valueFromParameter/outputParameterKey",
                    "x"),
     "root.dag.outputs.parameters.Output.valueFromParameter.outputParameterKey", "'x'"),
    ("adding", _set("root/dag/outputs/parameters/Output", {}),
     "root.dag.outputs.parameters.Output", "selects nothing"),
    ("adding", _drop("root/dag/outputs"),
     "root.dag.outputs.parameters.Output", "nothing hands it on"),
    ("adding", _drop("root/outputDefinitions"),
     "root.dag.outputs.parameters.Output", "declares no such output"),
    ("adding", _set("root/outputDefinitions/parameters/Output/parameterType", "STRING"),
     "root.dag.outputs.parameters.Output.valueFromParameter", "and declares a text"),
    ("one_of", _set("components/comp-condition-branches-1/dag/outputs/parameters/"
                    "pipelinechannel--condition-branches-1-oneof-1/valueFromOneof/"
                    "parameterSelectors/1/producerSubtask", "x"),
     "components.comp-condition-branches-1.dag.outputs.parameters"
     ".pipelinechannel--condition-branches-1-oneof-1.valueFromOneof.parameterSelectors[1]"
     ".producerSubtask", "no task 'x'"),
    ("one_of_artifacts", _set("components/comp-pick/dag/outputs/artifacts/Output/"
                              "artifactSelectors/0/outputArtifactKey", "x"),
     "components.comp-pick.dag.outputs.artifacts.Output.artifactSelectors[0].outputArtifactKey",
     "no output artifact 'x'"),
    ("one_of_artifacts", _set("components/comp-pick/dag/outputs/artifacts/Output/"
                              "artifactSelectors", []),
     "components.comp-pick.dag.outputs.artifacts.Output", "selects nothing"),
    ("one_of_artifacts", _set("components/comp-pick/outputDefinitions/artifacts/Output/"
                              "artifactType/schemaTitle", "system.Model"),
     "components.comp-pick.dag.outputs.artifacts.Output.artifactSelectors[0]", "system.Model"),
    # The whole
    ("adding", _set("root/dag/tasks", {}), "root.dag", "no tasks"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "place", "told"),
    _CASES,
    ids=[f"{name}-{place}-{number}" for number, (name, _, place, _) in enumerate(_CASES)],
)
def test_a_fault_is_told_with_its_place(
    name: str, change: Callable[[dict], None], place: str, told: str
) -> None:
    try:
        found = _faults(name, change)
    except PipelineInvalidError as error:
        found = error.faults

    assert place in [fault.place for fault in found]
    assert any(told in str(fault) for fault in found if fault.place == place)


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

        found = _faults("kubernetes", _set(path, value), platform=True)

        assert [fault.place for fault in found] == [self._PLACE + place]
        assert told in str(found[0])

    def test_a_workspace_without_a_size(self) -> None:
        path = "platforms/kubernetes/pipelineConfig/workspace/size"

        found = _faults("workspace", _set(path, "big"), platform=True)

        assert [fault.place for fault in found] == [
            "platforms.kubernetes.pipelineConfig.workspace.size"
        ]

    def test_a_deadline_below_zero(self) -> None:
        path = "platforms/kubernetes/pipelineConfig/activeDeadlineSeconds"

        found = _faults("workspace", _set(path, -5), platform=True)

        assert "activeDeadlineSeconds" in found[0].place

    def test_no_workspace(self) -> None:
        config = "platforms/kubernetes/pipelineConfig/workspace"

        found = _faults("workspace", _drop(config), platform=True)

        assert len(found) == 2
        assert all("workspace" in fault.problem for fault in found)


class TestCheck:
    def test_all_faults_are_told_at_once(self) -> None:
        documents = copy.deepcopy(_loaded("adding"))
        _drop("deploymentSpec/executors/exec-add")(documents[0])
        _set(f"{_ROOT}/add/dependentTasks", ["nobody", "add-2"])(documents[0])

        with pytest.raises(PipelineInvalidError) as caught:
            validation.check(_read(documents))

        assert caught.value.code == "PipelineInvalid"
        assert {fault.place for fault in caught.value.faults} == {
            "components.comp-add.executorLabel",
            "root.dag.tasks.add.dependentTasks[0]",
            "root.dag.tasks",
        }
        assert all(fault.place in caught.value.message for fault in caught.value.faults)
        assert "The pipeline adding has 3 faults" in caught.value.message

    def test_only_so_many_are_told(self) -> None:
        documents = copy.deepcopy(_loaded("adding"))
        missing = [f"none-{number}" for number in range(MOST_TOLD + 7)]
        _set(f"{_ROOT}/add/dependentTasks", missing)(documents[0])

        with pytest.raises(PipelineInvalidError) as caught:
            validation.check(_read(documents))

        assert len(caught.value.faults) == MOST_TOLD + 7
        assert len(caught.value.message.splitlines()) == MOST_TOLD + 2
        assert "7 more" in caught.value.message

    def test_constants_are_not_told(self) -> None:
        secret = {"runtimeValue": {"constant": "hunter2"}}

        found = _faults("adding", _set(f"{_ROOT}/add/inputs/parameters/a", secret))

        assert found
        assert "hunter2" not in "".join(map(str, found))


class TestSize:
    def test_a_pipeline_that_doubles_itself_over_and_over(self) -> None:
        documents = copy.deepcopy(_loaded("adding"))
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

        found = validation.faults(_read(documents))

        assert any(fault.place == "root" and "tasks" in fault.problem for fault in found)

    def test_dags_that_are_nested_too_deep(self) -> None:
        documents = copy.deepcopy(_loaded("ordered"))
        components = documents[0]["components"]
        for level in range(3000):
            below = {"componentRef": {"name": f"comp-{level + 1}"}}
            components[f"comp-{level}"] = {"dag": {"tasks": {"one": below}}}
        components["comp-3000"] = {"dag": {"tasks": {}}}
        documents[0]["root"]["dag"]["tasks"]["deep"] = {"componentRef": {"name": "comp-0"}}

        found = validation.faults(_read(documents))

        assert [fault.place for fault in found] == ["root"]
        assert "100 levels" in found[0].problem

    def test_components_that_run_each_other(self) -> None:
        found = _faults(
            "nested", _set("components/comp-double/dag/tasks/add/componentRef/name", "comp-twice")
        )

        assert any("runs itself" in fault.problem for fault in found)

    def test_a_long_chain_of_tasks(self) -> None:
        documents = copy.deepcopy(_loaded("ordered"))
        tasks = documents[0]["root"]["dag"]["tasks"]
        for number in range(2000):
            task = copy.deepcopy(tasks["add"])
            task["dependentTasks"] = [f"chain-{number - 1}"] if number else []
            tasks[f"chain-{number}"] = task

        assert validation.faults(_read(documents)) == []
