"""Artifacts that lie elsewhere: read by several tasks, written, and written somewhere else."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Model

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {"address": "s3://bucket/data.txt", "target": "s3://bucket/target.txt"}
OUTPUTS = None


@dsl.component(base_image=IMAGE)
def look(data: dsl.Input[Dataset]) -> str:
    import os

    with open(data.path) as file:
        return f"{data.uri} {os.path.basename(data.path)} {file.read()}"


@dsl.container_component
def cat(data: dsl.Input[Dataset], found: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image="alpine", command=["sh", "-c", 'mkdir -p "$(dirname "$2")"; cat "$1" > "$2"', "sh"],
        args=[data.path, found],
    )  # fmt: skip


@dsl.component(base_image=IMAGE)
def make(
    target: str,
    model: dsl.Output[Model],
    moved: dsl.Output[Dataset],
    beside: dsl.Output[Dataset],
    metrics: dsl.Output[Metrics],
) -> str:
    import os

    os.makedirs(model.path)
    with open(os.path.join(model.path, "weights"), "w") as file:
        file.write("weights")
    with open(moved.path, "w") as file:
        file.write("moved")
    moved.uri = target
    beside.uri = dsl.get_uri("beside.txt")
    with open(beside.uri, "w") as file:
        file.write("beside")
    metrics.log_metric("loss", 0.5)
    return model.uri


@dsl.component(base_image=IMAGE)
def take(
    model: dsl.Input[Model],
    moved: dsl.Input[Dataset],
    beside: dsl.Input[Dataset],
    metrics: dsl.Input[Metrics],
) -> str:
    import os

    found = [metrics.metadata["loss"], moved.uri]
    for path in (os.path.join(model.path, "weights"), moved.path, beside.path):
        with open(path) as file:
            found.append(file.read())
    return " ".join(str(one) for one in found)


@dsl.pipeline(name="elsewhere")
def pipeline(address: str, target: str) -> NamedTuple(
    "Outputs", first=str, second=str, program=str, model=str, taken=str
):
    data = dsl.importer(artifact_uri=address, artifact_class=Dataset).output
    made = make(target=target)
    taken = take(
        model=made.outputs["model"], moved=made.outputs["moved"],
        beside=made.outputs["beside"], metrics=made.outputs["metrics"],
    )  # fmt: skip
    found = NamedTuple("Outputs", first=str, second=str, program=str, model=str, taken=str)
    return found(
        first=look(data=data).output,
        second=look(data=data).output,
        program=cat(data=data).outputs["found"],
        model=made.outputs["Output"],
        taken=taken.output,
    )
