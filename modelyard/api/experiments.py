"""Experiments, as ``modelyard experiment``."""

from __future__ import annotations

from modelyard.api.verbs import noun, verb
from registry import deletion, experiments
from registry.experiments import ExperimentDetailView
from registry.views import JsonObject


def _update(
    name: str, *, new_name: str | None = None, description: str | None = None
) -> ExperimentDetailView:
    """Rename or describe an experiment; its runs stay in it, waiting ones as well."""
    return experiments.update(name, new_name, description)


def _delete(name: str) -> JsonObject:
    """Delete an experiment without active or waiting runs."""
    return deletion.delete("experiment", name)


@noun("experiments")
class ExperimentVerbs:
    """Experiments."""

    create = staticmethod(verb(experiments.create))
    list = staticmethod(verb(experiments.list_all))
    show = staticmethod(verb(experiments.show))
    update = staticmethod(verb(_update))
    delete = staticmethod(verb(_delete))
