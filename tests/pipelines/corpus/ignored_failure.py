"""A task that runs although what it needs has failed, with its default."""

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE, fail

ARGUMENTS = {}
OUTPUTS = {}
STATE = "FAILED"


@dsl.component(base_image=IMAGE)
def tell(message: str = "the default") -> str:
    print(message)
    return message


@dsl.pipeline(name="ignored-failure")
def pipeline():
    failed = fail(message="on purpose")
    tell(message=failed.output).ignore_upstream_failure()
