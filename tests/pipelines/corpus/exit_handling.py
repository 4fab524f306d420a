"""An exit task that is told how the body ended; the body fails."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from tests.pipelines.corpus.components import IMAGE, echo, fail

ARGUMENTS = {}
OUTPUTS = {}
STATE = "FAILED"


@dsl.component(base_image=IMAGE)
def tell(note: str, status: PipelineTaskFinalStatus):
    print(note, status.state, status.pipeline_task_name, status.error_message)


@dsl.pipeline(name="exit-handling")
def pipeline(note: str = "ended"):
    with dsl.ExitHandler(tell(note=note), name="body"):
        echo(text="before")
        fail(message="on purpose")
