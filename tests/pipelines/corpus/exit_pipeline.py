"""An exit task that is itself a pipeline, after a body that succeeds; and a second handler."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from tests.pipelines.corpus.components import IMAGE, echo

ARGUMENTS = {}
OUTPUTS = {}


@dsl.component(base_image=IMAGE)
def state_of(status: dict) -> str:
    print(status["state"])
    return status["state"]


@dsl.pipeline(name="clean-up")
def clean_up(note: str, status: PipelineTaskFinalStatus):
    echo(text=note)
    with dsl.If(state_of(status=status).output == "SUCCEEDED"):
        echo(text="all is well")


@dsl.pipeline(name="exit-pipeline")
def pipeline():
    with dsl.ExitHandler(clean_up(note="done")):
        echo(text="first")
    with dsl.ExitHandler(echo(text="second end")):
        echo(text="second")
