"""Loops in loops, with what they made collected into one flat list."""

from kfp import dsl

from tests.pipelines.corpus.components import add, total

ARGUMENTS = {}
OUTPUTS = {"Output": 66}


@dsl.pipeline(name="nested-loops")
def pipeline(tens: list = [10, 20]) -> int:  # noqa: B006 - a default for the compiler
    with dsl.ParallelFor(tens) as ten:
        with dsl.ParallelFor([1, 2]) as one:
            added = add(a=ten, b=one)
    return total(numbers=dsl.Collected(added.output)).output
