"""Container components: output files, artifacts, ConcatPlaceholder and IfPresentPlaceholder."""

from typing import Optional

from kfp import dsl
from kfp.dsl import Dataset, Input, Output, OutputPath

ARGUMENTS = {}
OUTPUTS = {"Output": "got: hello-world flag=none data=hello-world"}


@dsl.container_component
def greet(name: str, greeting: OutputPath(str), data: Output[Dataset]):
    return dsl.ContainerSpec(
        image="alpine:3.20",
        command=[
            "sh",
            "-c",
            'mkdir -p "$(dirname "$1")" "$(dirname "$2")"; '
            'printf %s "$0" > "$1"; printf %s "$0" > "$2"',
        ],
        args=[dsl.ConcatPlaceholder(["hello-", name]), greeting, data.path],
    )


@dsl.container_component
def report(text: str, data: Input[Dataset], answer: OutputPath(str), flag: Optional[str] = None):
    return dsl.ContainerSpec(
        image="alpine:3.20",
        command=[
            "sh",
            "-c",
            'mkdir -p "$(dirname "$0")"; d=$(cat "$1"); shift 1; '
            'printf "got: %s data=%s" "$*" "$d" > "$0"',
        ],
        args=[
            answer,
            data.path,
            text,
            dsl.IfPresentPlaceholder("flag", then=["--flag", flag], else_=["flag=none"]),
        ],
    )


@dsl.pipeline(name="containers")
def pipeline(name: str = "world") -> str:
    greeted = greet(name=name)
    told = report(text=greeted.outputs["greeting"], data=greeted.outputs["data"])
    return told.outputs["answer"]
