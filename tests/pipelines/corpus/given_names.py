"""Names that people give, also odd ones, beside the keys that the compiler makes."""

from kfp import dsl

from tests.pipelines.corpus.components import add, echo

ARGUMENTS = {"days": [1, 2]}
OUTPUTS = {}


@dsl.pipeline(name="given-names")
def pipeline(days: list):
    last = echo(text="over")
    with dsl.ExitHandler(last, name="guard"):
        counted = add(a=1)
        counted.set_display_name("count / 세다 🎉\nall")
        with dsl.If(counted.output > 0, name="good?"):
            echo(text="good").set_display_name("say")
            echo(text="again").set_display_name("say")
        with dsl.ParallelFor(days, name="each day") as day:
            add(a=day).set_display_name("per day")
            add(a=counted.output)
