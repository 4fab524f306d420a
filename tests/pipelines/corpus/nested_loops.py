"""Loops in loops, with what they made collected into a list of lists."""

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE, add

ARGUMENTS = {}
OUTPUTS = {"Output": 66}


@dsl.component(base_image=IMAGE)
def grand_total(numbers: list) -> int:
    return sum(sum(inner) for inner in numbers)


@dsl.pipeline(name="nested-loops")
def pipeline(tens: list = [10, 20]) -> int:  # noqa: B006 - a default for the compiler
    with dsl.ParallelFor(tens) as ten:
        with dsl.ParallelFor([1, 2]) as one:
            added = add(a=ten, b=one)
    return grand_total(numbers=dsl.Collected(added.output)).output
