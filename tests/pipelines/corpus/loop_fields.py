"""Fields of loop items, used in tasks, conditions and an inner loop."""

from kfp import dsl

from tests.pipelines.corpus.components import echo

ARGUMENTS = {}
OUTPUTS = {}


@dsl.pipeline(name="loop-fields")
def pipeline(
    rows: list = [{"kind": "a", "sizes": [1, 2]}, {"kind": "b", "sizes": [3]}],  # noqa: B006
):
    with dsl.ParallelFor(
        [{"side": "heads", "times": "once"}, {"side": "tails", "times": "twice"}]
    ) as coin:
        echo(text=coin.side)
        echo(text=coin.times)
    with dsl.ParallelFor(rows) as row:
        with dsl.If(row.kind == "a"):
            echo(text=row.kind)
        with dsl.ParallelFor(row.sizes) as size:
            echo(text=size)
            echo(text=row.kind)
