"""Pipelines written with the SDK: each module has a ``pipeline``, its ARGUMENTS and its OUTPUTS.

``OUTPUTS`` are the root's output parameters after a run with ``ARGUMENTS``; None where the
pipeline needs a cluster, and is only read. ``{folder}`` in an argument is an empty folder.
``STATE``, where it is there, is ``FAILED``. ``SECRETS`` and ``CONFIG_MAPS`` are what it finds by
name, with their keys; ``MOUNTS`` says that it wants volumes.
"""

import functools
import importlib
import pkgutil
import tempfile
from pathlib import Path
from types import ModuleType

NAMES = tuple(sorted({one.name for one in pkgutil.iter_modules(__path__)} - {"components"}))


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


@functools.cache
def compiled(name: str) -> bytes:
    """The pipeline's file, as the SDK's compiler writes it."""
    return compile_function(module(name).pipeline)


def compile_function(pipeline: object) -> bytes:
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return path.read_bytes()
