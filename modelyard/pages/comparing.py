"""The comparison of evaluations, for their page.

It takes NumPy and seconds, so the pages import it in the thread that compares.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelyard.pages.comparison_thread import Comparison, EvaluationFiles
from tasks.evaluation import comparison, row_sample
from tasks.evaluation.comparison import EvaluationRecord


def compare(evaluations: Sequence[EvaluationFiles]) -> Comparison:
    """Compare evaluations with the first of them.

    Raises:
        ModelyardError: As :func:`tasks.evaluation.comparison.compare`.
        ValueError: If their files are not an evaluation's.
    """
    records = [
        EvaluationRecord(
            one.run_id, one.name, json.loads(one.result), {}, row_sample.parse(one.sample)
        )
        for one in evaluations
    ]
    found = comparison.compare(records).to_json()
    return Comparison(
        metrics=found["metrics"],
        remarks=found["remarks"],
        names=[comparison.class_names(record, records[0]) for record in records],
    )
