"""The pipelines that are timed, and ``kfp.local``, as a process of its own.

``python -m benchmarks.noop_pipelines write SHAPE COUNT FILE`` compiles one;
``python -m benchmarks.noop_pipelines local SHAPE COUNT`` runs one with ``kfp.local``, in the
current folder, and prints the seconds that took as JSON.
"""

import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from kfp import compiler, dsl, local

_IMAGE = "python:3.11"
_PARALLEL = 50


def _noop(number: int = 0) -> int:
    return number


def _sleep(seconds: float) -> float:
    import time

    time.sleep(seconds)
    return seconds


def _component(does: Callable[..., Any], *, pip: bool = True) -> Callable[..., Any]:
    made: Callable[..., Any] = dsl.component(does, base_image=_IMAGE, install_kfp_package=pip)
    return made


def _chain(component: Callable[..., Any], count: int) -> None:
    number: Any = 0
    for _ in range(count):
        number = component(number=number).output


def _beside(component: Callable[..., Any], count: int) -> None:
    for number in range(count):
        component(number=number)


def _loop(component: Callable[..., Any], count: int) -> None:
    with dsl.ParallelFor(list(range(count)), parallelism=_PARALLEL):
        component(seconds=1.0)


_SHAPES: dict[str, Callable[[int], None]] = {
    "deep": functools.partial(_chain, _component(_noop)),
    "deep-pip": functools.partial(_chain, _component(_noop)),
    "deep-bare": functools.partial(_chain, _component(_noop, pip=False)),
    "wide": functools.partial(_beside, _component(_noop)),
    "loop": functools.partial(_loop, _component(_sleep)),
}


def pipeline(shape: str, count: int) -> Any:
    """A pipeline of a shape."""

    @dsl.pipeline(name=f"{shape}-{count}")  # type: ignore[untyped-decorator]
    def made() -> None:
        _SHAPES[shape](count)

    return made


def run_locally(shape: str, count: int) -> float:
    """Run one with ``kfp.local``; the seconds that took."""
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root="outputs")
    made = pipeline(shape, count)
    began = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):
        made()
    return time.monotonic() - began


def main() -> None:
    """Do what the command line says."""
    what, shape, count, *rest = sys.argv[1:]
    if what == "write":
        compiler.Compiler().compile(pipeline(shape, int(count)), rest[0])
    else:
        print(json.dumps({"seconds": run_locally(shape, int(count))}))


if __name__ == "__main__":
    main()
