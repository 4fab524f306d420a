"""Model evaluations, as ``modelyard evaluation``."""

from __future__ import annotations

from modelyard.api.verbs import noun, verb
from registry.evaluation_results import EvaluationComparisonView
from tasks.evaluation import evaluation_records


def _compare(*evaluations: str) -> EvaluationComparisonView:
    """Compare evaluations of the same data, by the names or ids of their runs.

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
