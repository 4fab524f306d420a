"""What a loop has collected goes into a branch, and is handed on as if it had been collected."""

from kfp import dsl

from tests.pipelines.corpus.components import add, total

ARGUMENTS = {}
OUTPUTS = {"Output": 12}


@dsl.pipeline(name="conditional-collection")
def pipeline(least: int = 2) -> list:
    with dsl.ParallelFor([1, 2, 3]) as number, dsl.If(number >= least):
        some = add(a=number, b=number)
    with dsl.If(least == 2):
        made = add(a=total(numbers=dsl.Collected(some.output)).output, b=2)
    return dsl.Collected(made.output)
