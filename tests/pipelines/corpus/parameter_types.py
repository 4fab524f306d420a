"""A parameter of every type, with constants, defaults and nested values."""

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {"text": 'höhe "1" $HOME', "deep": {"a": [1, {"b": 2.5}], "n": None}}
OUTPUTS = {
    "Output": '{"deep": {"a": [1, {"b": 2.5}], "n": null}, "flag": false, "items": [1, 2, [3]], '
    '"number": 0.5, "text": "h\\u00f6he \\"1\\" $HOME", "whole": 7}'
}


@dsl.component(base_image=IMAGE)
def show(text: str, whole: int, number: float, flag: bool, items: list, deep: dict) -> str:
    import json

    given = {"text": text, "whole": whole, "number": number, "flag": flag}
    return json.dumps({**given, "items": items, "deep": deep}, sort_keys=True)


@dsl.pipeline(name="parameter-types")
def pipeline(
    text: str,
    deep: dict,
    whole: int = 7,
    number: float = 0.5,
    flag: bool = False,
    items: list = [1, 2, [3]],  # noqa: B006 - the compiler takes it as a default
) -> str:
    return show(text=text, whole=whole, number=number, flag=flag, items=items, deep=deep).output
