"""Optional parameters without a default, at the root, in a nested pipeline and of a component."""

from typing import Optional

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {"given": "yes"}
OUTPUTS = {"Output": "yes None default None"}


@dsl.component(base_image=IMAGE)
def tell(
    given: Optional[str] = None,
    absent: Optional[int] = None,
    default: str = "default",
    later: Optional[dict] = None,
) -> str:
    return f"{given} {absent} {default} {later}"


@dsl.pipeline(name="inner")
def inner(given: Optional[str] = None, absent: Optional[int] = None) -> str:
    return tell(given=given, absent=absent).output


@dsl.pipeline(name="optional-parameters")
def pipeline(given: Optional[str] = None, absent: Optional[int] = None) -> str:
    return inner(given=given, absent=absent).output
