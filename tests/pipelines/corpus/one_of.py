"""The parameter of whichever branch has run; the branches are three."""

from kfp import dsl

from tests.pipelines.corpus.components import echo

ARGUMENTS = {"coin": "tails"}
OUTPUTS = {"Output": "tails"}


@dsl.pipeline(name="one-of")
def pipeline(coin: str) -> str:
    with dsl.If(coin == "heads"):
        heads = echo(text="heads")
    with dsl.Elif(coin == "tails"):
        tails = echo(text="tails")
    with dsl.Else():
        edge = echo(text="edge")
    return echo(text=dsl.OneOf(heads.output, tails.output, edge.output)).output
