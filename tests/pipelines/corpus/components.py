"""Components that pipelines of the corpus share. They need nothing but Python."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

IMAGE = "python:3.11-slim"


@dsl.component(base_image=IMAGE)
def add(a: int, b: int = 1) -> int:
    return a + b


@dsl.component(base_image=IMAGE)
def echo(text: str) -> str:
    print(text)
    return text


@dsl.component(base_image=IMAGE)
def whose(task: str = dsl.PIPELINE_TASK_NAME_PLACEHOLDER) -> str:
    return task


@dsl.component(base_image=IMAGE)
def total(numbers: list) -> int:
    return sum(int(number) for number in numbers)


@dsl.component(base_image=IMAGE)
def as_json(value: dict) -> str:
    import json

    return json.dumps(value, sort_keys=True)


@dsl.component(base_image=IMAGE)
def list_as_json(value: list) -> str:
    import json

    return json.dumps(value)


@dsl.component(base_image=IMAGE)
def fail(message: str) -> str:
    raise RuntimeError(message)


@dsl.component(base_image=IMAGE)
def write(text: str, data: Output[Dataset]):
    data.metadata["length"] = len(text)
    with open(data.path, "w") as file:
        file.write(text)


@dsl.component(base_image=IMAGE)
def read(data: Input[Dataset]) -> str:
    with open(data.path) as file:
        return file.read()
