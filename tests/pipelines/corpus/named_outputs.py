"""Several outputs of a component, by names."""

from typing import NamedTuple

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE, echo

ARGUMENTS = {}
OUTPUTS = {"Output": "3 left of 10"}


@dsl.component(base_image=IMAGE)
def divide(a: int, b: int) -> NamedTuple("Divided", [("whole", int), ("rest", int)]):
    from typing import NamedTuple

    divided = NamedTuple("Divided", [("whole", int), ("rest", int)])
    return divided(a // b, a % b)


@dsl.pipeline(name="named-outputs")
def pipeline(a: int = 10, b: int = 7) -> str:
    divided = divide(a=a, b=b)
    return echo(text=f"{divided.outputs['rest']} left of {a}").output
