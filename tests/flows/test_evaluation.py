"""What an evaluation records of its result."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.utils.validation import _validate_metric_name

from flows import evaluation
from infra.errors import BadInputError
from registry import evaluations
from registry.evaluations import InferenceStatus
from registry.runs import run_requests
from tasks.evaluation.evaluation_request import Evaluation


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("TooManyRecordsFailed", "modelyard runs update the-id -p max_failed=N; a retry of the"),
        ("OutputFilesExist", "modelyard runs update the-id -p overwrite=true; a retry of the"),
        ("BatchInferenceFailed", "A retry of the evaluation resumes it."),
        ("InputChanged", "A retry cannot resume it: start a new evaluation"),
        ("InputEmpty", "A retry cannot resume it: start a new evaluation"),
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


def test_a_retry_awaits_a_batch_inference_that_is_still_being_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = iter(["STOPPED", "COMPLETE"])
    done: list[str] = []

    def status_of(word: str) -> InferenceStatus:
        return InferenceStatus(word, word in {"STOPPED", "COMPLETE"}, "", "")

    def follow(_: object, __: object, run: str) -> InferenceStatus:
        done.append(f"awaited {run}")
        return status_of(next(words))

    monkeypatch.setattr(evaluations, "submit_inference", lambda *_: "it")
    monkeypatch.setattr(evaluations, "inference_status", lambda _: status_of("STOP IN PROGRESS"))
    monkeypatch.setattr(run_requests, "resume", lambda run: done.append(f"resumed {run}"))
    monkeypatch.setattr(evaluation, "_followed", follow)
    context: Any = SimpleNamespace(
        flow_run_id="a", name="a", attempt=2, logger=logging.getLogger("test")
    )

    assert evaluation._predict.fn(context, Evaluation(input_uri="in", output_uri="out")) == "it"
    assert done == ["awaited it", "resumed it", "awaited it"]


def test_the_log_says_how_far_it_is_and_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = iter([100.0, 100.5, 112.0, 113.0, 130.0])
    monkeypatch.setattr(evaluation.time, "monotonic", lambda: next(now))
    context: Any = SimpleNamespace(logger=logging.getLogger("test"))

    with caplog.at_level(logging.INFO):
        report = evaluation._progress(context, 10_000)
        for done in (0, 1200, 1300, 7500):
            report(done)

    assert caplog.messages == [
        "1,200 of 10,000 records: about 1 min 28 s left",
        "7,500 of 10,000 records: about 10 s left",
    ]


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


class TestFollowing:
    """The batch inference of an evaluation is followed to its end."""

    @pytest.fixture
    def context(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A run whose batch inference has not ended."""
        status = InferenceStatus(word="RUNNING", is_final=False, error_code="", message="")
        monkeypatch.setattr(evaluation, "EventNotifier", lambda *_, **__: SimpleNamespace(
            close=lambda: None))  # fmt: skip
        monkeypatch.setattr(evaluation, "_CHECK_SECONDS", 0)
        monkeypatch.setattr(evaluation, "_OUTPUTS_SECONDS", 0)
        monkeypatch.setattr(evaluation.evaluations, "inference_status", lambda _: status)
        left = iter(range(200))

        def raise_if_ended() -> None:
            if next(left, None) is None:
                raise TimeoutError

        return SimpleNamespace(raise_if_ended=raise_if_ended)

    def test_first_results_without_a_field_that_is_read_end_it(
        self, context: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = iter([[], [], ["prediction", "probabilities"]])
        monkeypatch.setattr(evaluation.evaluations, "predicted_outputs", lambda _: next(found))

        with pytest.raises(BadInputError) as raised:
            evaluation._followed(context, Evaluation(prediction_field="predicton"), "inference")

        assert raised.value.code == "OutputFieldMissing"
        assert "its first result has 'prediction', 'probabilities'." in raised.value.message

    def test_outputs_that_can_be_read_are_looked_at_once(
        self, context: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def predicted_outputs(run_id: str) -> list[str]:
            asked.append(run_id)
            return ["prediction"]

        monkeypatch.setattr(evaluation.evaluations, "predicted_outputs", predicted_outputs)
        with pytest.raises(TimeoutError):
            evaluation._followed(context, Evaluation(), "inference")

        assert asked == ["inference"]
