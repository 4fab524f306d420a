"""Artifacts of loops, collected into a list; iterations that skip theirs are left out."""

from typing import List

from kfp import dsl
from kfp.dsl import Dataset, Input

from tests.pipelines.corpus.components import IMAGE, write

ARGUMENTS = {}
OUTPUTS = {"Output": "a,b;yes"}


@dsl.component(base_image=IMAGE)
def join(data: Input[List[Dataset]]) -> str:
    texts = []
    for one in data:
        with open(one.path) as file:
            texts.append(file.read())
    return ",".join(texts)


@dsl.component(base_image=IMAGE)
def both(first: str, second: str) -> str:
    return f"{first};{second}"


@dsl.pipeline(name="collected-artifacts")
def pipeline() -> str:
    with dsl.ParallelFor(["a", "b"]) as text:
        every = write(text=text)
    with dsl.ParallelFor(["no", "yes"]) as answer, dsl.If(answer == "yes"):
        some = write(text=answer)
    return both(
        first=join(data=dsl.Collected(every.outputs["data"])).output,
        second=join(data=dsl.Collected(some.outputs["data"])).output,
    ).output
