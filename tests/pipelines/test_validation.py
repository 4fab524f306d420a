from collections.abc import Callable

import pytest

from pipelines import validation
from pipelines.faults import PipelineInvalidError
from tests.pipelines import corpus
from tests.pipelines.mutating import drop, faults_of, loaded, read, set_at

_ROOT = "root/dag/tasks"
_DATA = f"{_ROOT}/train/inputs/artifacts/data"
_STATUS = "components/comp-tell/inputDefinitions/parameters/status"
_OUT = "root/dag/outputs/parameters/Output"
_CONTAINER = "deploymentSpec/executors/exec-add/container"


class TestSound:
    @pytest.mark.parametrize("name", corpus.NAMES)
    def test_what_the_compiler_writes_has_no_faults(self, name: str) -> None:
        validation.check(read(loaded(name)))

    def test_what_no_task_reaches_is_not_looked_at(self) -> None:
        unused = {"executorLabel": "exec-none"}

        assert faults_of("adding", lambda spec: spec["components"].update(other=unused)) == []

    def test_a_loop_may_name_its_own_item(self) -> None:
        own = {"componentInputParameter": "tens-loop-item"}
        inputs = f"{_ROOT}/for-loop-1/inputs/parameters/pipelinechannel--tens-loop-item"

        assert faults_of("nested_loops", set_at(inputs, own)) == []

    def test_settings_of_the_compiler_are_no_unknown_inputs(self) -> None:
        given = {"runtimeValue": {"constant": "image"}}
        inputs = f"{_ROOT}/add/inputs/parameters"

        assert faults_of("adding", set_at(f"{inputs}/base_image", given)) == []

    def test_braces_of_other_languages_stay(self) -> None:
        value = {"runtimeValue": {"constant": "{{$.Values.x}} {{$}} {{x}}"}}

        assert faults_of("ordered", set_at(f"{_ROOT}/echo/inputs/parameters/text", value)) == []

    def test_old_compilers_declare_one_of_what_a_loop_collects(self) -> None:
        loop = (
            "components/comp-for-loop-2/outputDefinitions/parameters/pipelinechannel--add-Output"
        )

        assert faults_of("loops", set_at(f"{loop}/parameterType", "NUMBER_INTEGER")) == []

    def test_what_is_collected_is_declared_as_a_list_outside_of_loops_too(self) -> None:
        made = loaded("conditional_collection")[0]["components"]["comp-condition-4"]

        (declared,) = made["outputDefinitions"]["parameters"].values()
        assert declared["parameterType"] == "LIST"
        assert validation.faults(read(loaded("conditional_collection"))) == []


# A pipeline of the corpus, what is changed in it, where the fault is, and a part of what it says.
_CASES: list[tuple[str, Callable[[dict], None], str, str]] = [
    # Components and executors
    ("adding", drop("components/comp-add"),
     "root.dag.tasks.add.componentRef.name", "There is no component 'comp-add'."),
    ("adding", drop(f"{_ROOT}/add/componentRef"),
     "root.dag.tasks.add.componentRef.name", "names no component"),
    ("adding", drop("deploymentSpec/executors/exec-add"),
     "components.comp-add.executorLabel", "There is no executor 'exec-add'. There is: exec-add-2"),
    ("adding", drop("components/comp-add/executorLabel"),
     "components.comp-add", "neither a dag nor an executorLabel"),
    ("adding", set_at("deploymentSpec/executors/exec-add", {}),
     "deploymentSpec.executors.exec-add", "empty"),
    ("adding", set_at("deploymentSpec/executors/exec-add", {"resolver": {}}),
     "deploymentSpec.executors.exec-add.resolver", "resolver"),
    ("adding", set_at("deploymentSpec/executors/exec-add", {"customJob": {}}),
     "deploymentSpec.executors.exec-add.customJob", "custom job"),
    ("adding", drop(f"{_CONTAINER}/image"),
     "deploymentSpec.executors.exec-add.container.image", "no image"),
    ("adding", set_at(f"{_CONTAINER}/lifecycle", {"preCacheCheck": {}}),
     "deploymentSpec.executors.exec-add.container.lifecycle", "not run"),
    ("adding", set_at(f"{_CONTAINER}/env", [{"name": "A=B", "value": "x"}]),
     "deploymentSpec.executors.exec-add.container.env[0].name", "A=B"),
    ("adding", set_at(f"{_CONTAINER}/args/1", "{{$.inputs.unknown}}"),
     "deploymentSpec.executors.exec-add.container.args[1]", "{{$.inputs.unknown}}"),
    ("adding", set_at(f"{_CONTAINER}/args/1", '{"Concat": 3}'),
     "deploymentSpec.executors.exec-add.container.args[1]", "Concat"),
    ("adding", set_at(f"{_CONTAINER}/args/1", "{{$.inputs.parameters['aa']}}"),
     "deploymentSpec.executors.exec-add.container.args[1]", "no input parameter 'aa'"),
    ("adding", set_at(f"{_CONTAINER}/args/1", "{{$.outputs.artifacts['x'].path}}"),
     "deploymentSpec.executors.exec-add.container.args[1]", "no output artifact 'x'"),
    ("adding", set_at(f"{_CONTAINER}/args/1", "{{$.workspace_path}}"),
     "deploymentSpec.executors.exec-add.container.args[1]", "workspace"),
    ("resources", set_at(f"{_CONTAINER}/resources/resourceCpuLimit", "much"),
     "deploymentSpec.executors.exec-add.container.resources.resourceCpuLimit", "'much'"),
    ("resources", set_at(f"{_CONTAINER}/resources/resourceMemoryLimit", "-1Gi"),
     "deploymentSpec.executors.exec-add.container.resources.resourceMemoryLimit", "'-1Gi'"),
    ("resources", set_at(f"{_CONTAINER}/resources/memoryRequest", -1.0),
     "deploymentSpec.executors.exec-add.container.resources.memoryRequest", "below 0"),
    ("accelerators", set_at(f"{_CONTAINER}/resources/accelerator/resourceCount", "1.5"),
     "deploymentSpec.executors.exec-add.container.resources.accelerator.resourceCount", "whole"),
    ("importing", drop("deploymentSpec/executors/exec-importer/importer/artifactUri"),
     "deploymentSpec.executors.exec-importer.importer.artifactUri", "no address"),
    ("importing", set_at("deploymentSpec/executors/exec-importer-2/importer/artifactUri",
                       {"runtimeParameter": "url"}),
     "deploymentSpec.executors.exec-importer-2.importer.artifactUri", "no input 'url'"),
    ("importing", set_at("deploymentSpec/executors/exec-importer/importer/downloadToWorkspace",
                       True),
     "deploymentSpec.executors.exec-importer.importer.downloadToWorkspace", "workspace"),
    ("importing", drop("components/comp-importer/outputDefinitions"),
     "deploymentSpec.executors.exec-importer.importer", "one output artifact"),
    # Declarations
    ("adding", set_at("components/comp-add/inputDefinitions/parameters/b/defaultValue", "one"),
     "components.comp-add.inputDefinitions.parameters.b.defaultValue", "a whole number is wanted"),
    ("placeholders", set_at("components/comp-whose/inputDefinitions/parameters/task/defaultValue",
                            "by {{$.pipeline_nonsense}}"),
     "components.comp-whose.inputDefinitions.parameters.task.defaultValue", "is not known"),
    ("adding", set_at("root/inputDefinitions/parameters/b/defaultValue", 4.5),
     "root.inputDefinitions.parameters.b.defaultValue", "the number 4.5"),
    ("adding", set_at("root/inputDefinitions/parameters/b/literals", [1.0, 2.0]),
     "root.inputDefinitions.parameters.b.defaultValue", "1, 2"),
    ("adding", set_at("components/comp-add/inputDefinitions/parameters/b/parameterType", 99),
     "components.comp-add.inputDefinitions.parameters.b.parameterType", "99"),
    ("adding", set_at("components/comp-add/outputDefinitions/parameters/..",
                    {"parameterType": "STRING"}),
     "components.comp-add.outputDefinitions.parameters...", "'..'"),
    ("artifacts", set_at("components/comp-write/outputDefinitions/parameters",
                       {"data": {"parameterType": "STRING"}}),
     "components.comp-write.outputDefinitions.artifacts.data", "as well"),
    # What tasks are given
    ("adding", set_at(f"{_ROOT}/add-2/inputs/parameters/a/taskOutputParameter/producerTask", "ad"),
     "root.dag.tasks.add-2.inputs.parameters.a", "no task 'ad' in this DAG. There is: add"),
    ("adding", set_at(f"{_ROOT}/add-2/inputs/parameters/a/taskOutputParameter/outputParameterKey",
                    "out"),
     "root.dag.tasks.add-2.inputs.parameters.a", "add has no output parameter 'out'. There is: O"),
    ("adding", set_at(f"{_ROOT}/add/inputs/parameters/a/componentInputParameter", "x"),
     "root.dag.tasks.add.inputs.parameters.a", "root has no input parameter 'x'. There is: a, b."),
    ("adding", set_at(f"{_ROOT}/add/inputs/parameters/a",
                    {"runtimeValue": {"runtimeParameter": "x"}}),
     "root.dag.tasks.add.inputs.parameters.a", "no input parameter 'x'"),
    ("adding", set_at(f"{_ROOT}/add/inputs/parameters/a", {}),
     "root.dag.tasks.add.inputs.parameters.a", "Nothing is given"),
    ("adding", set_at(f"{_ROOT}/add/inputs/parameters/a", {"runtimeValue": {}}),
     "root.dag.tasks.add.inputs.parameters.a", "runtimeValue is empty"),
    ("adding", drop(f"{_ROOT}/add/inputs/parameters/a"),
     "root.dag.tasks.add.inputs.parameters.a", "is not given it"),
    ("adding", set_at(f"{_ROOT}/add/inputs/parameters/c", {"componentInputParameter": "a"}),
     "root.dag.tasks.add.inputs.parameters.c", "comp-add has no such parameter"),
    ("adding", set_at(f"{_ROOT}/add/inputs/parameters/a", {"runtimeValue": {"constant": "x"}}),
     "root.dag.tasks.add.inputs.parameters.a.runtimeValue.constant", "a string, where a whole"),
    ("adding", set_at(f"{_ROOT}/add/inputs/parameters/a", {"runtimeValue": {"constant": None}}),
     "root.dag.tasks.add.inputs.parameters.a.runtimeValue.constant", "It is null"),
    ("adding", set_at("root/inputDefinitions/parameters/a/parameterType", "STRING"),
     "root.dag.tasks.add.inputs.parameters.a", "It is given a string, where a whole number is"),
    ("ordered", set_at(f"{_ROOT}/echo/inputs/parameters/text",
                     {"runtimeValue": {"constant": "{{$.pipeline_unknown}}"}}),
     "root.dag.tasks.echo.inputs.parameters.text.runtimeValue.constant", "pipeline_unknown"),
    ("ordered", set_at(f"{_ROOT}/echo/inputs/parameters/text",
                     {"runtimeValue": {"constant": "a {{$.inputs.parameters['x']}}"}}),
     "root.dag.tasks.echo.inputs.parameters.text.runtimeValue.constant", "no input parameter 'x'"),
    ("ordered", set_at(f"{_ROOT}/echo/inputs/parameters/text",
                     {"runtimeValue": {"constant": "{{$.workspace_path}}/a"}}),
     "root.dag.tasks.echo.inputs.parameters.text.runtimeValue.constant", "workspace"),
    ("loop_fields", set_at("components/comp-for-loop-2/dag/tasks/echo/inputs/parameters/text/"
                         "parameterExpressionSelector", "parseJson(string_value)["),
     "components.comp-for-loop-2.dag.tasks.echo.inputs.parameters.text"
     ".parameterExpressionSelector", "cannot be read"),
    ("artifacts", drop(f"{_ROOT}/train/inputs/artifacts"),
     "root.dag.tasks.train.inputs.artifacts.data", "is not given it"),
    ("artifacts", set_at(f"{_DATA}/taskOutputArtifact/producerTask",
                       "w"),
     "root.dag.tasks.train.inputs.artifacts.data", "There is no task 'w'"),
    ("artifacts", set_at(f"{_DATA}/taskOutputArtifact/outputArtifactKey",
                       "x"),
     "root.dag.tasks.train.inputs.artifacts.data", "write has no output artifact 'x'"),
    ("artifacts", set_at(f"{_DATA}", {"componentInputArtifact": "x"}),
     "root.dag.tasks.train.inputs.artifacts.data", "root has no input artifact 'x'"),
    ("artifacts", set_at(f"{_DATA}", {}),
     "root.dag.tasks.train.inputs.artifacts.data", "Nothing is given"),
    ("artifacts", set_at("components/comp-train/inputDefinitions/artifacts/data/artifactType/"
                       "schemaTitle", "system.Model"),
     "root.dag.tasks.train.inputs.artifacts.data", "a system.Dataset, where a system.Model is"),
    ("artifacts", set_at("components/comp-train/inputDefinitions/artifacts/data/artifactType/"
                       "schemaVersion", "1.0.0"),
     "root.dag.tasks.train.inputs.artifacts.data", "a system.Dataset, where"),
    ("artifacts", set_at("components/comp-train/inputDefinitions/artifacts/data/isArtifactList",
                       True),
     "root.dag.tasks.train.inputs.artifacts.data", "one artifact, where a list of artifacts"),
    ("artifacts", set_at(f"{_ROOT}/write/inputs/parameters/data",
                       {"componentInputParameter": "text"}),
     "root.dag.tasks.write.inputs.parameters.data", "no such parameter"),
    ("artifacts", set_at(f"{_ROOT}/train/inputs/parameters",
                       {"data": {"componentInputParameter": "text"}}),
     "root.dag.tasks.train.inputs.parameters.data", "has it as an artifact"),
    # Order
    ("ordered", set_at(f"{_ROOT}/echo-2/dependentTasks/0", "ad"),
     "root.dag.tasks.echo-2.dependentTasks[0]", "There is no task 'ad'"),
    ("ordered", set_at(f"{_ROOT}/add/dependentTasks", ["echo-2"]),
     "root.dag.tasks", "add → echo-2 → add"),
    ("ordered", set_at(f"{_ROOT}/add/dependentTasks", ["add"]), "root.dag.tasks", "add → add"),
    ("adding", set_at(f"{_ROOT}/add/inputs/parameters/b",
                    {"taskOutputParameter": {"producerTask": "add-2",
                                             "outputParameterKey": "Output"}}),
     "root.dag.tasks", "add → add-2 → add"),
    ("nested", set_at("components/comp-double/dag/tasks/add/componentRef/name", "comp-double"),
     "components.comp-double", "It runs itself: comp-double → comp-double."),
    # Loops
    ("loops", drop(f"{_ROOT}/for-loop-2/parameterIterator/itemInput"),
     "root.dag.tasks.for-loop-2.parameterIterator.itemInput", "missing"),
    ("loops", set_at(f"{_ROOT}/for-loop-2/parameterIterator/itemInput", "x"),
     "root.dag.tasks.for-loop-2.parameterIterator.itemInput", "no input 'x'"),
    ("loops", set_at(f"{_ROOT}/for-loop-2/parameterIterator/items/raw", "{}"),
     "root.dag.tasks.for-loop-2.parameterIterator.items.raw", "not a list"),
    ("loops", set_at(f"{_ROOT}/for-loop-2/parameterIterator/items/raw", "[1"),
     "root.dag.tasks.for-loop-2.parameterIterator.items.raw", "not a list"),
    ("loops", set_at(f"{_ROOT}/for-loop-2/parameterIterator/items", {}),
     "root.dag.tasks.for-loop-2.parameterIterator.items", "no items"),
    ("loops", set_at(f"{_ROOT}/for-loop-2/iteratorPolicy/parallelismLimit", -1),
     "root.dag.tasks.for-loop-2.iteratorPolicy.parallelismLimit", "below 0"),
    ("nested_loops", set_at(f"{_ROOT}/for-loop-1/parameterIterator/items/inputParameter", "x"),
     "root.dag.tasks.for-loop-1.parameterIterator.items.inputParameter", "no input 'x'"),
    ("artifact_loop", set_at(f"{_ROOT}/for-loop-1/artifactIterator/items/inputArtifact", "x"),
     "root.dag.tasks.for-loop-1.artifactIterator.items.inputArtifact", "no input 'x'"),
    ("artifact_loop", set_at(f"{_ROOT}/for-loop-1/artifactIterator/itemInput", "x"),
     "root.dag.tasks.for-loop-1.artifactIterator.itemInput", "no input 'x'"),
    # Conditions and policies
    ("conditions", set_at(f"{_ROOT}/condition-7/triggerPolicy/condition", "1 =="),
     "root.dag.tasks.condition-7.triggerPolicy.condition", ""),
    ("conditions", set_at(f"{_ROOT}/condition-7/triggerPolicy/condition",
                        "inputs.parameter_values['x'] == 'y'"),
     "root.dag.tasks.condition-7.triggerPolicy.condition", "no input 'x'"),
    ("retrying", set_at(f"{_ROOT}/third-time/retryPolicy/maxRetryCount", -1),
     "root.dag.tasks.third-time.retryPolicy.maxRetryCount", "below 0"),
    ("retrying", set_at(f"{_ROOT}/third-time/retryPolicy/backoffDuration", "-1s"),
     "root.dag.tasks.third-time.retryPolicy.backoffDuration", "below 0"),
    ("retrying", set_at(f"{_ROOT}/third-time/retryPolicy/backoffMaxDuration", "-1s"),
     "root.dag.tasks.third-time.retryPolicy.backoffMaxDuration", "below 0"),
    ("retrying", set_at(f"{_ROOT}/third-time/retryPolicy/backoffFactor", -2.0),
     "root.dag.tasks.third-time.retryPolicy.backoffFactor", "below 0"),
    ("exit_handling", drop(f"{_ROOT}/tell/triggerPolicy"),
     "root.dag.tasks.tell.inputs.parameters.status.taskFinalStatus", "Only an exit task"),
    ("exit_handling", set_at(f"{_ROOT}/tell/triggerPolicy/strategy", 9),
     "root.dag.tasks.tell.triggerPolicy.strategy", ""),
    ("exit_handling", set_at(f"{_ROOT}/tell/inputs/parameters/status/taskFinalStatus/producerTask",
                           "x"),
     "root.dag.tasks.tell.inputs.parameters.status", "There is no task 'x'"),
    ("exit_handling", set_at(f"{_STATUS}/parameterType",
                           "BOOLEAN"),
     "root.dag.tasks.tell.inputs.parameters.status", "true or false is wanted"),
    # What DAGs hand on
    ("adding", set_at(f"{_OUT}/valueFromParameter/producerSubtask", "x"),
     "root.dag.outputs.parameters.Output.valueFromParameter.producerSubtask", "no task 'x'"),
    ("adding", set_at(f"{_OUT}/valueFromParameter/outputParameterKey",
                    "x"),
     "root.dag.outputs.parameters.Output.valueFromParameter.outputParameterKey", "'x'"),
    ("adding", set_at("root/dag/outputs/parameters/Output", {}),
     "root.dag.outputs.parameters.Output", "selects nothing"),
    ("adding", drop("root/dag/outputs"),
     "root.dag.outputs.parameters.Output", "nothing hands it on"),
    ("adding", drop("root/outputDefinitions"),
     "root.dag.outputs.parameters.Output", "declares no such output"),
    ("adding", set_at("root/outputDefinitions/parameters/Output/parameterType", "STRING"),
     "root.dag.outputs.parameters.Output.valueFromParameter", "and declares a string"),
    ("one_of", set_at("components/comp-condition-branches-1/dag/outputs/parameters/"
                    "pipelinechannel--condition-branches-1-oneof-1/valueFromOneof/"
                    "parameterSelectors/1/producerSubtask", "x"),
     "components.comp-condition-branches-1.dag.outputs.parameters"
     ".pipelinechannel--condition-branches-1-oneof-1.valueFromOneof.parameterSelectors[1]"
     ".producerSubtask", "no task 'x'"),
    ("one_of_artifacts", set_at("components/comp-pick/dag/outputs/artifacts/Output/"
                              "artifactSelectors/0/outputArtifactKey", "x"),
     "components.comp-pick.dag.outputs.artifacts.Output.artifactSelectors[0].outputArtifactKey",
     "no output artifact 'x'"),
    ("one_of_artifacts", set_at("components/comp-pick/dag/outputs/artifacts/Output/"
                              "artifactSelectors", []),
     "components.comp-pick.dag.outputs.artifacts.Output", "selects nothing"),
    ("one_of_artifacts", set_at("components/comp-pick/outputDefinitions/artifacts/Output/"
                              "artifactType/schemaTitle", "system.Model"),
     "components.comp-pick.dag.outputs.artifacts.Output.artifactSelectors[0]", "system.Model"),
    ("artifacts", set_at(f"{_ROOT}/write/inputs/parameters/text",
                       {"taskOutputParameter": {"producerTask": "write",
                                                "outputParameterKey": "data"}}),
     "root.dag.tasks.write.inputs.parameters.text", "data of write is an artifact"),
    ("artifacts", set_at(f"{_DATA}",
                       {"taskOutputArtifact": {"producerTask": "train",
                                               "outputArtifactKey": "Output"}}),
     "root.dag.tasks.train.inputs.artifacts.data", "Output of train is a parameter"),
    ("artifact_loop", set_at("components/comp-for-loop-1/dag/tasks/read/inputs",
                           {"parameters": {"pipelinechannel--x": {"componentInputParameter":
                            "pipelinechannel--make-several-Output"}}}),
     "components.comp-for-loop-1.dag.tasks.read.inputs.parameters.pipelinechannel--x",
     "is an artifact of comp-for-loop-1"),
    ("nested_loops", set_at("components/comp-for-loop-1/inputDefinitions/parameters/"
                          "pipelinechannel--tens/parameterType", "BOOLEAN"),
     "root.dag.tasks.for-loop-1.parameterIterator.items.inputParameter", "no list to loop over"),
    # The whole
    ("adding", set_at("root", {"executorLabel": "exec-add"}), "root", "not a DAG"),
    ("adding", set_at("root/dag/tasks", {}), "root.dag", "no tasks"),
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
        found = faults_of(name, change)
    except PipelineInvalidError as error:
        found = error.faults

    assert place in [fault.place for fault in found]
    assert any(told in str(fault) for fault in found if fault.place == place)
