"""Placeholders of the job and the task, in constants and defaults; not in what is given."""

from kfp import dsl

from tests.pipelines.corpus.components import add, as_json, echo, list_as_json, whose

ARGUMENTS = {"a": 2, "a_text": "{{$.pipeline_task_name}}"}
OUTPUTS = {
    "Output": '{"default": "whose", "list": ["3", "x3y"], "passed": "{{$.pipeline_task_name}}",'
    ' "sum": "is 3"}'
}


@dsl.pipeline(name="placeholders")
def pipeline(a: int, a_text: str) -> str:
    added = add(a=a)
    echo(text=dsl.PIPELINE_JOB_NAME_PLACEHOLDER)
    echo(text=f"{dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER} of {a}")
    echo(text=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    echo(text=dsl.PIPELINE_TASK_NAME_PLACEHOLDER)
    echo(text=dsl.PIPELINE_TASK_ID_PLACEHOLDER)
    echo(text=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER)
    echo(text=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER)
    list_as_json(value=[added.output, a])
    return as_json(
        value={
            "sum": f"is {added.output}",
            "list": [added.output, f"x{added.output}y"],
            "default": whose().output,
            "passed": whose(task=a_text).output,
        }
    ).output
