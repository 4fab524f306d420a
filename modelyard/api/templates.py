"""Training templates, as ``modelyard template``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from modelyard.api.verbs import noun, verb
from registry import deletion
from registry import training_templates as rows
from registry.training_templates import TrainingTemplateDetailView
from registry.views import JsonObject
from tasks.training import training_templates

_NONE: Mapping[str, Any] = MappingProxyType({})


def _create(
    name: str, parameters: Mapping[str, Any], *, description: str = ""
) -> TrainingTemplateDetailView:
    """Store parameters of ``train`` under a name."""
    return training_templates.create(name, description, parameters)


def _update(
    name: str,
    *,
    new_name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] = _NONE,
) -> TrainingTemplateDetailView:
    """Rename or describe a template, or change its parameters; a None removes one."""
    return training_templates.update(name, new_name, description, parameters)


def _copy(
    name: str,
    new_name: str,
    *,
    description: str | None = None,
    parameters: Mapping[str, Any] = _NONE,
) -> TrainingTemplateDetailView:
    """Copy a template, with changed parameters."""
    return training_templates.copy(name, new_name, description, parameters)


def _delete(name: str) -> JsonObject:
    """Delete a template; runs that took it stay as they are."""
    return deletion.delete("template", name)


@noun("templates")
class TemplateVerbs:
    """Training templates."""

    create = staticmethod(verb(_create))
    list = staticmethod(verb(rows.list_all))
    show = staticmethod(verb(rows.show))
    update = staticmethod(verb(_update))
    copy = staticmethod(verb(_copy))
    delete = staticmethod(verb(_delete))
