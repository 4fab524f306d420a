"""If, Elif and Else in each other, over numbers, texts and flags."""

from kfp import dsl

from tests.pipelines.corpus.components import add, echo

ARGUMENTS = {"number": 6}
OUTPUTS = {}


@dsl.pipeline(name="conditions")
def pipeline(number: int = 1, text: str = "it's", flag: bool = True, ratio: float = 0.5):
    added = add(a=number)
    with dsl.If(added.output > 5):
        with dsl.If(flag == True, name="flag is set"):  # noqa: E712 - the compiler reads it
            echo(text="big and flagged")
    with dsl.Elif(added.output == 5):
        echo(text="five")
    with dsl.Else():
        with dsl.If(ratio >= 0.5):
            echo(text="small")
    with dsl.If(text != "other"):
        echo(text=text)
