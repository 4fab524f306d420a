"""The client: the command's nouns and verbs in Python."""

from __future__ import annotations

import contextlib
import logging
import pkgutil
from typing import TYPE_CHECKING, Any, Self

from flows import connection
from flows.connection import StackKind

if TYPE_CHECKING:
    from modelyard.api.evaluations import EvaluationVerbs
    from modelyard.api.experiments import ExperimentVerbs
    from modelyard.api.models import ModelVerbs
    from modelyard.api.notify import NotifyVerbs
    from modelyard.api.pipelines import PipelineVerbs
    from modelyard.api.runs import RunVerbs
    from modelyard.api.schedules import ScheduleVerbs
    from modelyard.api.storage import StorageVerbs
    from modelyard.api.templates import TemplateVerbs

# Each is imported when it is used: a caller needs few of them.
NOUNS = {
    "evaluations": "modelyard.api.evaluations:EvaluationVerbs",
    "experiments": "modelyard.api.experiments:ExperimentVerbs",
    "models": "modelyard.api.models:ModelVerbs",
    "notify": "modelyard.api.notify:NotifyVerbs",
    "pipelines": "modelyard.api.pipelines:PipelineVerbs",
    "runs": "modelyard.api.runs:RunVerbs",
    "schedules": "modelyard.api.schedules:ScheduleVerbs",
    "storage": "modelyard.api.storage:StorageVerbs",
    "templates": "modelyard.api.templates:TemplateVerbs",
}

_logger = logging.getLogger("modelyard.client")


class Client:
    """The command's nouns, such as ``client.runs.list()`` for ``modelyard runs list``.

    A verb does what the command does and returns what ``--json`` prints, as a view: its fields are
    attributes. It connects by itself, to the stack that is up in the home, or else to a temporary
    one that is started for it. In a ``with`` block the client stays connected, and flows that are
    called there use the same stack.

    Attributes:
        evaluations: Model evaluations.
        experiments: Experiments.
        models: Registered models.
        notify: Notifications.
        pipelines: Uploaded pipelines, which ``pipeline_run`` runs.
        runs: Runs of every flow.
        schedules: Schedules.
        storage: Accesses to storage.
        templates: Training templates.
    """

    evaluations: type[EvaluationVerbs]
    experiments: type[ExperimentVerbs]
    models: type[ModelVerbs]
    notify: type[NotifyVerbs]
    pipelines: type[PipelineVerbs]
    runs: type[RunVerbs]
    schedules: type[ScheduleVerbs]
    storage: type[StorageVerbs]
    templates: type[TemplateVerbs]

    def __init__(self) -> None:
        """Make a client, which is not connected yet."""
        self._open: list[contextlib.ExitStack] = []

    def __enter__(self) -> Self:
        """Connect until the block ends.

        Raises:
            StackError: If the temporary stack cannot be started, or its database does not answer.
        """
        kind = connection.stack_kind()
        with connection.unreachable_reported(), contextlib.ExitStack() as opening:
            endpoints = opening.enter_context(connection.kept_open())
            self._open.append(opening.pop_all())
        _logger.info("Connected to %s (stack: %s).", endpoints.prefect_api_url, kind)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.pop().close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, stack: {self.stack}>"

    def __getattr__(self, noun: str) -> Any:
        if noun not in NOUNS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {noun!r}")
        return pkgutil.resolve_name(NOUNS[noun])

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *NOUNS})

    @property
    def stack(self) -> StackKind:
        """The stack that it reaches: ``running``, ``temporary``, or one of the ``environment``."""
        return connection.stack_kind()
