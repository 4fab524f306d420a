"""Pipelines that are compiled by the SDK, for what its compiler writes."""

import functools
from typing import Optional

import yaml
from kfp import dsl

from pipelines import conditions
from tests.pipelines.corpus import compile_function


@dsl.component(base_image="python:3.11-slim")
def say(text: str) -> str:
    return text


@dsl.component(base_image="python:3.11-slim")
def count() -> int:
    return 1


@dsl.component(base_image="python:3.11-slim")
def make(text: str, data: dsl.Output[dsl.Dataset]):
    pass


@dsl.pipeline(name="branches")
def branches(s: str, i: int, f: float, b: bool):
    with dsl.If(s == "it"):
        say(text="s=it")
    with dsl.If(s != "it"):
        say(text="s!=it")
    with dsl.If(i == 3):
        say(text="i=3")
    with dsl.If(f == 3):
        say(text="f=3")
    with dsl.If(f > 2), dsl.If(i > 3):
        say(text="f>2")
    with dsl.If(b == True):  # noqa: E712
        say(text="b=true")
    with dsl.If(i < 4.5):
        say(text="i<4.5")
    with dsl.If(i <= f):
        say(text="i<=f")
    with dsl.If(s == 1):
        say(text="s=1")
    with dsl.If(i < 4):
        say(text="outer if")
        with dsl.If(f >= 1e9):
            say(text="inner if")
        with dsl.Else():
            say(text="inner else")
    with dsl.Elif(i == 4):
        say(text="outer elif")
    with dsl.Else():
        say(text="outer else")


@functools.cache
def compiled(pipeline):
    return next(yaml.safe_load_all(compile_function(pipeline)))


def dags(written):
    yield written["root"]["dag"]
    for component in written["components"].values():
        if "dag" in component:
            yield component["dag"]


def conditions_of(pipeline):
    return [
        task["triggerPolicy"]["condition"]
        for dag in dags(compiled(pipeline))
        for task in dag["tasks"].values()
        if "triggerPolicy" in task
    ]


def taken(given):
    """What ``branches`` says with some arguments."""
    written = compiled(branches)

    def walk(dag):
        for task in dag["tasks"].values():
            condition = task.get("triggerPolicy", {}).get("condition")
            named = {f"pipelinechannel--{name}": value for name, value in given.items()}
            if condition and not conditions.evaluate(condition, named):
                continue
            component = written["components"][task["componentRef"]["name"]]
            if "dag" in component:
                yield from walk(component["dag"])
            else:
                yield task["inputs"]["parameters"]["text"]["runtimeValue"]["constant"]

    return set(walk(written["root"]["dag"]))


@dsl.component(base_image="python:3.11-slim")
def join(texts: list) -> str:
    return ""


@dsl.component(base_image="python:3.11-slim")
def read(data: dsl.Input[dsl.Dataset]):
    pass


@dsl.pipeline(name="loops")
def loops(rows: list, groups: list) -> str:
    with dsl.ParallelFor([{"side": "heads", "times": "1"}]) as coin:
        say(text=coin.side)
    with dsl.ParallelFor(rows) as row:
        with dsl.If(row.kind == "a"):
            say(text=row.kind)
        with dsl.ParallelFor(row.sizes) as size:
            said = say(text=size)
    with dsl.ParallelFor(groups) as group:
        say(text=group)
    return join(texts=dsl.Collected(said.output)).output


@dsl.pipeline(name="alternatives")
def alternatives() -> str:
    coin = say(text="heads")
    with dsl.If(coin.output == "heads"):
        heads = say(text="h")
        made_heads = make(text="h")
    with dsl.Else():
        tails = say(text="t")
        made_tails = make(text="t")
    read(data=dsl.OneOf(made_heads.output, made_tails.output))
    return dsl.OneOf(heads.output, tails.output)


@dsl.container_component
def program(
    text: str,
    number: int,
    data: dsl.Input[dsl.Dataset],
    made: dsl.Output[dsl.Model],
    path: dsl.OutputPath(str),
    maybe: str = "d",
    none: Optional[str] = None,  # noqa: UP045 - the SDK knows no other way
):
    return dsl.ContainerSpec(
        image="busybox",
        command=[
            "echo",
            dsl.ConcatPlaceholder(["--text=", text, "/", number]),
            dsl.IfPresentPlaceholder("none", then=["--none", none], else_=["--no-none", "really"]),
            dsl.IfPresentPlaceholder("maybe", then=dsl.ConcatPlaceholder(["--m=", maybe])),
            dsl.ConcatPlaceholder(["a", dsl.IfPresentPlaceholder("none", then=none, else_="b")]),
            dsl.IfPresentPlaceholder("none", then=["--never"]),
        ],
        args=[data.uri, data.path, made.uri, made.path, path, f"{text}!", data.metadata["rows"]],
    )


@dsl.pipeline(name="constants")
def constants(a: int):
    added = count()
    say(text=f"{added.output} and {a}")
    say(text=dsl.PIPELINE_JOB_NAME_PLACEHOLDER + "/" + dsl.PIPELINE_TASK_NAME_PLACEHOLDER)
    join(texts=[added.output, "x", f"{a}"])
