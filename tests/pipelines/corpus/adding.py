"""One task after another, by a parameter."""

from kfp import dsl

from tests.pipelines.corpus.components import add

ARGUMENTS = {"a": 3}
OUTPUTS = {"Output": 10}


@dsl.pipeline(name="adding", description="Adds numbers.", display_name="Adding numbers")
def pipeline(a: int, b: int = 4) -> int:
    first = add(a=a, b=b)
    return add(a=first.output, b=3).output
