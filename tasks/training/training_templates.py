"""Training templates: their validation, and the completion of a run's parameters from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from infra.errors import BadInputError
from registry import names, training_templates
from registry.training_templates import TrainingTemplateDetailView
from tasks import parameters
from tasks.training import training_request
from tasks.training.training_request import Training

LeftOut = Callable[[str, Any], bool]

_OF_A_RUN = ("name", "template")
FIELDS = tuple(name for name in Training.model_fields if name not in _OF_A_RUN)


def create(name: str, description: str, given: Mapping[str, Any]) -> TrainingTemplateDetailView:
    """Create a template; its view.

    Args:
        name: Its unique name.
        description: Free text.
        given: Parameters of ``train``; relative paths are resolved against the working directory.

    Raises:
        BadInputError: With a code of its own for each fault.
        ConflictError: If the name is taken.
    """
    names.check_plain(name)
    names.check_description(description)
    return training_templates.create(name, description, checked(given))


def update(
    name: str, new_name: str | None, description: str | None, given: Mapping[str, Any]
) -> TrainingTemplateDetailView:
    """Change a template: merge ``given`` into its parameters; null removes one.

    Raises:
        BadInputError: With a code of its own for each fault; nothing is changed then.
        NotFoundError: If there is no such template.
        ConflictError: If the new name is taken.
    """
    if new_name is not None:
        names.check_plain(new_name)
    if description is not None:
        names.check_description(description)
    return training_templates.change(
        name, new_name, description, lambda present: checked(parameters.merge(present, given))
    )


def copy(
    name: str, new_name: str, description: str | None, given: Mapping[str, Any]
) -> TrainingTemplateDetailView:
    """Create a copy of a template, with ``given`` merged into its parameters.

    Raises:
        BadInputError: With a code of its own for each fault.
        NotFoundError: If there is no such template.
        ConflictError: If the new name is taken.
    """
    found = training_templates.show(name)
    return create(
        new_name,
        found.description if description is None else description,
        parameters.merge(found.parameters, given),
    )


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Validate parameters for a template; the given ones, with absolute paths.

    Checks that depend on the run's machine, such as whether a URI exists, are left to the run.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    given = parameters.drop_nulls(given)
    for name in _OF_A_RUN:
        if name in given:
            raise BadInputError(
                f"A template cannot hold the parameter {name!r}.",
                "It belongs to each run; leave it out.",
                code="ParameterOfRun",
            )
    training = parameters.read(Training, given).absolute()
    training_request.check_static(training)
    kept: dict[str, Any] = _only(training.model_dump(mode="json"), given)
    return kept


def _only(whole: Any, given: Any) -> Any:
    """Select the fields of ``whole`` that ``given`` has, in groups as well."""
    if not (isinstance(whole, Mapping) and isinstance(given, Mapping)):
        return whole
    return {name: _only(whole[name], value) for name, value in given.items()}


def fill(
    given: Mapping[str, Any],
    left_out: LeftOut | None = None,
    called: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Complete a run's parameters from the template that they name, if any.

    Groups are merged, lists and values replaced, and null removes a parameter of the template.

    Args:
        given: Parameters of the run.
        left_out: Whether a parameter, by its dotted name and its value, counts as not given.
            A form gives every field: see :func:`empty_in_form`.
        called: Names of the run's parameters by names of the template's that differ.

    Raises:
        NotFoundError: With the code ``TemplateUnknown``.
    """
    name = given.get("template")
    if not name:
        return dict(given)
    own = _given(given, left_out) if left_out else given
    found = training_templates.parameters(str(name))
    laid = parameters.merge({called.get(key, key): value for key, value in found.items()}, own)
    return {**parameters.drop_nulls(laid), "template": name}


def from_template(given: Mapping[str, Any], form: bool) -> dict[str, Any]:
    """Complete the parameters of a training from its template.

    Args:
        given: Parameters of the run.
        form: Whether a form gave them, in which a field that is left out is empty.
    """
    return fill(given, _LEFT_OUT if form else None)


def _given(group: Mapping[str, Any], left_out: LeftOut, prefix: str = "") -> dict[str, Any]:
    kept = {}
    for name, value in group.items():
        place = f"{prefix}{name}"
        inner = _given(value, left_out, f"{place}.") if isinstance(value, Mapping) else value
        if not left_out(place, inner):
            kept[name] = inner
    return kept


def empty_in_form(model: type[BaseModel]) -> LeftOut:
    """Rule of a form: an empty field counts as not given, and a switch that is as it began.

    A form begins with empty fields and has a value in every switch, see
    :func:`flows.forms.schema`.
    """
    defaults = model().model_dump(mode="json")

    def left_out(place: str, value: Any) -> bool:
        default: Any = defaults
        for name in place.split("."):
            if not isinstance(default, Mapping) or name not in default:
                return value is None  # a hyperparameter, which may be an empty text
            default = default[name]
        if isinstance(default, bool):
            return value is None or value is default
        return value is None or value in ("", [], {})

    return left_out


_LEFT_OUT = empty_in_form(Training)
