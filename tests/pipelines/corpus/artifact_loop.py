"""A loop over a list of artifacts."""

from typing import List

from kfp import dsl
from kfp.dsl import Dataset, Output

from tests.pipelines.corpus.components import IMAGE, list_as_json, read

ARGUMENTS = {}
OUTPUTS = {"Output": '["0", "1"]'}


@dsl.component(base_image=IMAGE)
def one(number: int, data: Output[Dataset]):
    with open(data.path, "w") as file:
        file.write(str(number))


@dsl.pipeline(name="make-several")
def several() -> List[Dataset]:
    with dsl.ParallelFor([0, 1]) as number:
        made = one(number=number)
    return dsl.Collected(made.outputs["data"])


@dsl.pipeline(name="artifact-loop")
def pipeline() -> str:
    with dsl.ParallelFor(items=several().output) as data:
        content = read(data=data)
    return list_as_json(value=dsl.Collected(content.output)).output
