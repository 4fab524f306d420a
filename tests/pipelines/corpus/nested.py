"""Pipelines as components of pipelines, twice over, and one of them used twice."""

from kfp import dsl

from tests.pipelines.corpus.components import add

ARGUMENTS = {"a": 1}
OUTPUTS = {"Output": 25}


@dsl.pipeline(name="double")
def double(a: int) -> int:
    return add(a=a, b=a).output


@dsl.pipeline(name="twice")
def twice(a: int, extra: int = 1) -> int:
    once = double(a=a)
    again = double(a=once.output)
    return add(a=again.output, b=extra).output


@dsl.pipeline(name="nested")
def pipeline(a: int) -> int:
    first = twice(a=a)
    return twice(a=first.output, extra=5).output
