"""The artifact of whichever branch has run, handed out of a pipeline within another."""

from kfp import dsl
from kfp.dsl import Dataset

from tests.pipelines.corpus.components import read, write

ARGUMENTS = {"coin": "tails"}
OUTPUTS = {"Output": "second data"}


@dsl.pipeline(name="pick")
def pick(coin: str) -> Dataset:
    with dsl.If(coin == "heads"):
        first = write(text="first data")
    with dsl.Else():
        second = write(text="second data")
    return dsl.OneOf(first.outputs["data"], second.outputs["data"])


@dsl.pipeline(name="one-of-artifacts")
def pipeline(coin: str) -> str:
    return read(data=pick(coin=coin).output).output
