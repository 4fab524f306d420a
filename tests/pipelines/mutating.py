"""Compiled pipelines of the corpus, changed, and what is then wrong with them."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import yaml

from pipelines import reading, validation
from pipelines.faults import PipelineFault
from pipelines.pipeline import Pipeline
from tests.pipelines import corpus

Documents = list[dict[str, Any]]


@functools.cache
def loaded(name: str) -> Documents:
    return list(yaml.safe_load_all(corpus.compiled(name)))


def read(documents: Documents) -> Pipeline:
    return reading.read_bytes(yaml.safe_dump_all(documents).encode(), "p.yaml")


def _at(data: Any, path: str) -> tuple[Any, Any]:
    *above, last = path.split("/")
    for part in above:
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data, int(last) if isinstance(data, list) else last


def set_at(path: str, value: Any) -> Callable[[dict], None]:
    def change(spec: dict) -> None:
        there, last = _at(spec, path)
        there[last] = value

    return change


def drop(path: str) -> Callable[[dict], None]:
    def change(spec: dict) -> None:
        there, last = _at(spec, path)
        del there[last]

    return change


def faults_of(
    name: str, *changes: Callable[[dict], None], platform: bool = False
) -> list[PipelineFault]:
    documents = copy.deepcopy(loaded(name))
    for change in changes:
        change(documents[1 if platform else 0])
    return validation.faults(read(documents))
