"""A component that writes something else than it declares, and would be tried again."""

from kfp import dsl

from tests.pipelines.corpus.components import add

ARGUMENTS = {}
OUTPUTS = {}
STATE = "FAILED"


@dsl.container_component
def write_a_word(number: dsl.OutputPath(int)):
    return dsl.ContainerSpec(
        image="alpine", command=["sh", "-c", 'echo >> ran; echo many > "$0"'], args=[number]
    )


@dsl.pipeline(name="malformed")
def pipeline() -> int:
    made = write_a_word().set_retry(num_retries=3)
    return add(a=made.outputs["number"]).output
