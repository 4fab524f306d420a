"""Loops over literals, a parameter, a task's output and nothing, one of them limited."""

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE, add, echo, total

ARGUMENTS = {"words": ["x", "y"]}
OUTPUTS = {"Output": 12}


@dsl.component(base_image=IMAGE)
def count(to: int) -> list:
    return list(range(to))


@dsl.pipeline(name="loops")
def pipeline(words: list, none: list = []) -> int:  # noqa: B006 - a default for the compiler
    with dsl.ParallelFor([1, 2, 3], parallelism=2) as number:
        added = add(a=number, b=2)
    with dsl.ParallelFor(words) as word:
        echo(text=word)
    with dsl.ParallelFor(none) as nothing:
        echo(text=nothing)
    with dsl.ParallelFor(count(to=2).output) as index:
        echo(text=f"number {index}")
    return total(numbers=dsl.Collected(added.output)).output
