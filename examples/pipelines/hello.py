"""A greeting: one component, one input. `python examples/pipelines/hello.py` compiles it."""

from pathlib import Path

from kfp import compiler, dsl


@dsl.component(base_image="python:3.11")
def say_hello(name: str) -> str:
    """Say hello."""
    greeting = f"Hello, {name}!"
    print(greeting)
    return greeting


@dsl.pipeline(name="hello", description="Says hello to whom you like.")
def hello(recipient: str) -> str:
    """Greet somebody.

    Args:
        recipient: Who is greeted.
    """
    return say_hello(name=recipient).output


if __name__ == "__main__":
    compiler.Compiler().compile(hello, str(Path(__file__).with_suffix(".yaml")))
