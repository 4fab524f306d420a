"""Tasks that ask for accelerators, one of them by parameters. This pipeline is only read."""

from kfp import dsl

from tests.pipelines.corpus.components import add, echo

ARGUMENTS = {}
OUTPUTS = None


@dsl.pipeline(name="accelerators")
def pipeline(kind: str = "nvidia.com/gpu", number: str = "1"):
    add(a=1).set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(2)
    echo(text="x").set_accelerator_type(kind).set_accelerator_limit(number)
