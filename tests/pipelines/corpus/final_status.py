"""An exit task that knows of what run it is told the end, and of what part of it."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from tests.pipelines.corpus.components import IMAGE, echo

ARGUMENTS = {}
OUTPUTS = {}


@dsl.component(base_image=IMAGE)
def expect(status: PipelineTaskFinalStatus):
    told = (status.state, status.pipeline_task_name, status.error_code, status.error_message)
    assert told == ("SUCCEEDED", "exit-handler-1", None, None), told
    assert status.pipeline_job_resource_name.startswith("final-status-")


@dsl.pipeline(name="final-status")
def pipeline():
    with dsl.ExitHandler(expect()):
        echo(text="the body")
