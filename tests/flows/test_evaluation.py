"""What an evaluation records of its result."""

from __future__ import annotations

import pytest
from mlflow.utils.validation import _validate_metric_name

from flows import evaluation
from registry.evaluations import InferenceStatus


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("TooManyRecordsFailed", "modelyard runs update the-id -p max_failed=N; a retry of the"),
        ("BatchInferenceFailed", "A retry of the evaluation resumes it."),
        ("InputChanged", "A retry cannot resume it: start a new evaluation"),
    ],
)
def test_a_batch_inference_that_fails_says_what_to_do(code: str, remedy: str) -> None:
    status = InferenceStatus(
        word="FAIL BATCH INFERENCE", is_final=True, error_code=code, message=f"{code}: why"
    )

    error = evaluation._unpredicted("the-id", status)

    assert (error.code, "FAIL BATCH INFERENCE: why" in error.message) == (code, True)
    assert remedy in str(error.hint)
    assert ("A retry of the evaluation resumes it." in str(error.hint)) is (
        code == "BatchInferenceFailed"
    )


def test_a_batch_inference_that_was_deleted_is_not_resumed() -> None:
    error = evaluation._unpredicted("the-id", None)

    assert error.code == "RunDeleted"
    assert "start a new evaluation" in str(error.hint)


def test_classes_of_any_name_have_metrics_of_their_own() -> None:
    metrics = {
        "f1/yes": 0.5,
        "f1/.": 0.1,
        "f1/..": 0.2,
        "f1/a*": 0.3,
        "f1/a?": 0.4,
        "f1/n/a": None,
    }
    found = evaluation._metrics({"metrics": metrics, "counts": {"records": 7}})

    assert found == {
        "f1/yes": 0.5, "f1/_": 0.1, "f1/_ 2": 0.2, "f1/a_": 0.3, "f1/a_ 2": 0.4, "f1/n/a": None,
        "records/records": 7.0,
    }  # fmt: skip
    for name in found:
        _validate_metric_name(name)
