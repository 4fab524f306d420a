"""A component whose code is in an image of its own, which no machine has without that image."""

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {"text": "a"}
OUTPUTS = None


@dsl.component(base_image=IMAGE, target_image="registry.example/team/shout:1")
def shout(text: str) -> str:
    return text.upper()


@dsl.pipeline(name="containerized")
def pipeline(text: str) -> str:
    return shout(text=text).output
