"""Artifacts of several kinds, with metadata, handed on between tasks and out of the pipeline."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tests.pipelines.corpus.components import IMAGE, write

ARGUMENTS = {}
OUTPUTS = {"Output": 5}


@dsl.component(base_image=IMAGE)
def train(data: Input[Dataset], model: Output[Model], metrics: Output[Metrics]) -> int:
    with open(data.path) as file:
        text = file.read()
    model.metadata["framework"] = "none"
    with open(model.path, "w") as file:
        file.write(text.upper())
    metrics.log_metric("accuracy", 0.75)
    return int(data.metadata["length"])


@dsl.pipeline(name="artifacts")
def pipeline(text: str = "words") -> int:
    written = write(text=text)
    return train(data=written.outputs["data"]).outputs["Output"]
