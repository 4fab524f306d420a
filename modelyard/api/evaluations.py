"""Model evaluations, as ``modelyard evaluation``."""

from __future__ import annotations

from typing import Any

from modelyard.api.verbs import noun, verb
from tasks.evaluation import evaluation_records


def _compare(*evaluations: str) -> dict[str, Any]:
    """Compare evaluations of the same data, by the names or ids of their runs.

    Returns:
        ``evaluations``, ``metrics`` and ``remarks``; a metric has ``values``, and
        ``differences`` from the first one with ``low`` and ``high`` of their 95 % intervals.

    Raises:
        NotFoundError: If there is no such evaluation.
        ConflictError: With the code ``EvaluationsNotComparable``, if they differ in their data.
    """
    return evaluation_records.compare(evaluations)


@noun("evaluations")
class EvaluationVerbs:
    """Model evaluations."""

    list = staticmethod(verb(evaluation_records.list_all))
    show = staticmethod(verb(evaluation_records.show))
    compare = staticmethod(verb(_compare))
