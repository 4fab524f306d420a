"""Tasks that wait for each other without handing anything on."""

from kfp import dsl

from tests.pipelines.corpus.components import add, echo

ARGUMENTS = {}
OUTPUTS = {"Output": "last"}


@dsl.pipeline(name="ordered")
def pipeline() -> str:
    first = echo(text="first")
    beside = add(a=1)
    return echo(text="last").after(first, beside).output
