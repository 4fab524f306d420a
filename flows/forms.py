"""Forms of flows, derived from their request models.

A field's type, default and help text are written once, in the pydantic model. Prefect reads a
form from a function, so a flow's function gets the model's signature and documentation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel

from tasks.parameters import form_fields

_RETURNS = "\n\nReturns:"
_GROUP = "#/definitions/"


def signature(model: type[BaseModel]) -> inspect.Signature:
    """The signature of a function whose parameters are the fields of ``model``."""
    return inspect.Signature([
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty
            if field.is_required()
            else field.get_default(call_default_factory=True),
            annotation=field.rebuild_annotation(),
        )
        for name, field in form_fields(model).items()
    ])  # fmt: skip


def bound(
    model: type[BaseModel], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters of a call, by name; unknown ones are left for the model to refuse.

    A group is a mapping, or an instance of its model, of which the fields that were given count.
    """
    given = {**dict(zip(form_fields(model), args, strict=False)), **kwargs}
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:
    """The mapping of a model, also of those in a list."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def documentation(text: str, model: type[BaseModel]) -> str:
    """A flow's docstring with an ``Args`` section of its model's help texts."""
    described = {
        name: one.description for name, one in form_fields(model).items() if one.description
    }
    lines = [f"    {name}: {help_text}" for name, help_text in described.items()]
    before, returns, after = inspect.cleandoc(text).partition(_RETURNS)
    return f"{before}\n\nArgs:\n" + "\n".join(lines) + returns + after


def schema(function: Callable[..., Any], templated: Collection[str] = ()) -> dict[str, Any]:
    """The JSON schema of a function's form; the fields of groups have a position as well.

    Args:
        function: The function.
        templated: The fields that a template may have. They begin empty, in groups as well, since
            what is in one then was chosen and wins. A switch, which cannot be empty, has its
            default.
    """
    found = parameter_schema(function).model_dump_for_openapi()
    groups: Mapping[str, Any] = found.get("definitions", {})
    for group in groups.values():
        for position, field in enumerate(group.get("properties", {}).values()):
            field["position"] = position  # the database keeps no order of keys
    for name in templated:
        field = found["properties"][name]
        inner = groups.get(field.get("$ref", "").removeprefix(_GROUP), {}).get("properties", {})
        if not inner:
            _empty(field)
        for key, one in inner.items():
            if _empty(one):
                del field["default"][key]
    return {**found, "additionalProperties": False}


def _empty(field: dict[str, Any]) -> bool:
    """Have a field begin empty; whether it would have begun with a value."""
    default = field.get("default")
    if isinstance(default, bool) or default in (None, "", [], {}):
        return False
    del field["default"]
    field["description"] += f" Empty for the template's, or else {default}."
    return True
