"""Resources, fixed and from parameters; environment variables; an image that is a parameter."""

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE, add, echo

ARGUMENTS = {}
OUTPUTS = {"Output": "set"}


@dsl.component(base_image=IMAGE)
def variable() -> str:
    import os

    return os.environ["GREETING"]


@dsl.pipeline(name="resources")
def pipeline(cores: str = "500m", memory: str = "256Mi", image: str = IMAGE) -> str:
    fixed = add(a=1)
    fixed.set_cpu_request("0.1").set_cpu_limit("1").set_memory_request("64Mi")
    fixed.set_memory_limit("1Gi").set_env_variable("GREETING", "hello")
    echo(text="parameters").set_cpu_limit(cores).set_memory_limit(memory)
    echo(text="image").set_container_image(image)
    return variable().set_env_variable("GREETING", "set").output
