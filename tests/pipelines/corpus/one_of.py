"""The output of whichever branch has run: a parameter and an artifact."""

from kfp import dsl
from kfp.dsl import Dataset

from tests.pipelines.corpus.components import IMAGE, echo, read, write

ARGUMENTS = {"coin": "tails"}
OUTPUTS = {"Output": "tails: second data"}


@dsl.component(base_image=IMAGE)
def both(side: str, content: str) -> str:
    return f"{side}: {content}"


@dsl.pipeline(name="pick")
def pick(coin: str) -> Dataset:
    with dsl.If(coin == "heads"):
        first = write(text="first data")
    with dsl.Else():
        second = write(text="second data")
    return dsl.OneOf(first.outputs["data"], second.outputs["data"])


@dsl.pipeline(name="one-of")
def pipeline(coin: str) -> str:
    with dsl.If(coin == "heads"):
        heads = echo(text="heads")
    with dsl.Elif(coin == "tails"):
        tails = echo(text="tails")
    with dsl.Else():
        edge = echo(text="edge")
    side = dsl.OneOf(heads.output, tails.output, edge.output)
    content = read(data=pick(coin=coin).output)
    return both(side=side, content=content.output).output
