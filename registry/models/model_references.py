"""References to versions in parameters: ``NAME/VERSION``, ``NAME@ALIAS``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from registry.schedules import schedules

SCHEME = "models:/"
# The parameter of flows that use a version; those that register one have a group of this name.
PARAMETER = "model"


@dataclass(frozen=True)
class ModelReference:
    """A version of a model, by its number or by an alias.

    Attributes:
        name: The model's name.
        version: The version's number; None if it is given by an alias.
        alias: The alias; "" if it is given by its number.
    """

    name: str
    version: int | None = None
    alias: str = ""


def parse(text: str) -> ModelReference | None:
    """The reference that ``text`` is; None if it is none."""
    path = text.removeprefix(SCHEME)
    name, slash, number = path.rpartition("/")
    if slash and name and number.isdecimal():
        return ModelReference(name, int(number))
    name, at, alias = path.rpartition("@")
    if at and name and alias and "/" not in path:
        return ModelReference(name, alias=alias)
    return None


def spellings(path: str) -> list[str]:
    """How parameters may write ``NAME/VERSION`` or ``NAME@ALIAS``."""
    return [path, SCHEME + path]


def scheduled(references: Sequence[str]) -> list[tuple[str, str]]:
    """Enabled schedules, sorted, whose runs may use one of ``references``, each with that one."""
    given = schedules.names_and_parameters(enabled=True)
    return [
        (schedule, reference)
        for schedule, parameters in sorted(given.items())
        for reference in references
        if schedules.may_be(parameters.get(PARAMETER), reference)
    ]


def following(old: str, new: str) -> Callable[[Any], str | None]:
    """What rewrites a parameter that refers to the model ``old``; it returns None for others."""

    def rewritten(value: Any) -> str | None:
        found = parse(value) if isinstance(value, str) else None
        if found is None or found.name != old:
            return None
        scheme = SCHEME if value.startswith(SCHEME) else ""
        return f"{scheme}{new}{value.removeprefix(SCHEME).removeprefix(old)}"

    return rewritten
