from __future__ import annotations

import pytest
from prefect import states
from prefect.client.schemas.objects import State, StateType

from infra import state_details
from registry.runs import statuses


@pytest.mark.parametrize(
    ("state", "word", "detail"),
    [
        (None, "CREATE REQUESTED", ""),
        (states.Scheduled(), "CREATE REQUESTED", ""),
        (states.Late(), "CREATE REQUESTED", "Late"),
        (states.AwaitingRetry(), "CREATE REQUESTED", "AwaitingRetry"),
        (states.Pending(), "CREATE IN PROGRESS", ""),
        (State(type=StateType.PENDING, name="Submitting"), "CREATE IN PROGRESS", ""),
        (State(type=StateType.PENDING, name="InfrastructurePending"), "CREATE IN PROGRESS", ""),
        (states.Running(), "RUNNING", ""),
        (states.Retrying(), "RUNNING", "Retrying"),
        (states.Paused(), "RUNNING", "Paused"),
        (states.Cancelling(), "STOP IN PROGRESS", ""),
        (states.Cancelled(), "STOPPED", ""),
        (states.Completed(), "COMPLETE", ""),
        (states.Completed(message="[GoalReached] Best: trial 3"), "COMPLETE", "GoalReached"),
        (states.Failed(), "FAIL TRAIN", ""),
        (states.Failed(name="FailTrain"), "FAIL TRAIN", ""),
        (states.Failed(message="[CreateFailed] Odd: It is odd."), "CREATE FAILED", ""),
        (states.Failed(name="TimedOut"), "TIMED OUT", ""),
        (states.Crashed(), "FAIL TRAIN", "Crashed"),
        (states.Crashed(message="[OOMKilled] It used too much."), "FAIL TRAIN", "OOMKilled"),
        # As earlier versions wrote them.
        (states.Failed(name="CreateFailed"), "CREATE FAILED", ""),
        (states.Crashed(name="OOMKilled"), "FAIL TRAIN", "OOMKilled"),
    ],
)
def test_words_of_a_training(state: State | None, word: str, detail: str) -> None:
    assert statuses.word("train", state) == word
    assert statuses.detail(state) == detail


@pytest.mark.parametrize(
    ("state", "word", "detail"),
    [
        (states.Completed(message="[MaxTrialsReached]"), "COMPLETE", "MaxTrialsReached"),
        (states.Completed(name="MaxTrialsReached"), "COMPLETE", "MaxTrialsReached"),
        (states.Completed(name="SuggestionEndReached"), "COMPLETE", "SuggestionEndReached"),
        (states.Failed(), "FAIL HYPERPARAMETER TUNING", ""),
        (states.Failed(name="FailHyperparameterTuning"), "FAIL HYPERPARAMETER TUNING", ""),
        (states.Crashed(), "FAIL HYPERPARAMETER TUNING", "Crashed"),
        (states.Failed(name="CreateFailed"), "CREATE FAILED", ""),
        (states.Failed(name="TimedOut"), "TIMED OUT", ""),
        (states.Cancelled(), "STOPPED", ""),
    ],
)
def test_words_of_a_tuning(state: State, word: str, detail: str) -> None:
    assert statuses.word("tune", state) == word
    assert statuses.detail(state) == detail


@pytest.mark.parametrize("state", [states.Failed(), states.Crashed()])
def test_a_flow_without_a_word_of_its_own_fails_plainly(state: State) -> None:
    assert statuses.word("another", state) == "FAIL"


@pytest.mark.parametrize(
    ("flow", "failed", "word"),
    [
        ("train", False, "COMPLETE IN PROGRESS"),
        ("train", True, "FAIL TRAIN IN PROGRESS"),
        ("tune", True, "FAIL HYPERPARAMETER TUNING IN PROGRESS"),
        ("pipeline-run", True, "FAIL PIPELINE RUN IN PROGRESS"),
    ],
)
def test_a_run_whose_work_has_ended_has_the_word_of_its_end(
    flow: str, failed: bool, word: str
) -> None:
    labels = statuses.concluding(2, failed=failed)

    assert statuses.word(flow, states.Running(), labels, attempt=2) == word
    assert not statuses.is_failure(word)
    assert statuses.word(flow, states.Cancelling(), labels, attempt=2) == "STOP IN PROGRESS"
    assert statuses.word(flow, states.Completed(), labels, attempt=2) == "COMPLETE"


def test_another_attempt_runs_whatever_became_of_the_one_before() -> None:
    labels = statuses.concluding(1, failed=True)

    assert statuses.word("train", states.Running(), labels, attempt=2) == "RUNNING"
    assert statuses.word("train", states.Running()) == "RUNNING"


@pytest.mark.parametrize("kind", list(StateType))
def test_every_state_of_prefect_has_a_word(kind: StateType) -> None:
    assert statuses.word("train", State(type=kind)).isupper()


@pytest.mark.parametrize(
    ("detail", "name", "message"),
    [
        ("GoalReached", "Completed", "[GoalReached] Best: trial 3"),
        ("", "Completed", "Best: trial 3"),
    ],
)
def test_a_detail_travels_in_the_message_under_prefects_own_name(
    detail: str, name: str, message: str
) -> None:
    written = state_details.annotate("COMPLETED", detail, "Best: trial 3")

    assert written == (name, message)
    state = states.Completed(name=written[0], message=written[1])
    assert (statuses.detail(state), statuses.message(state)) == (detail, "Best: trial 3")


def test_names_of_prefect_stay_names() -> None:
    assert state_details.annotate("FAILED", "TimedOut", "Late.") == ("TimedOut", "Late.")
    assert statuses.message(None) == ""


def test_what_looks_like_a_list_is_no_detail() -> None:
    state = states.Failed(message="[1, 2] is not a number")

    assert (statuses.detail(state), statuses.message(state)) == ("", "[1, 2] is not a number")


def test_the_code_of_an_error_is_that_of_the_attempt_that_failed() -> None:
    labels = statuses.error_label(2, "ScriptFailed")

    assert statuses.error_code(labels, 2) == "ScriptFailed"
    assert statuses.error_code(labels, 3) == ""
    assert statuses.error_code({}, 1) == ""


def test_prefects_own_names_are_those_that_it_makes() -> None:
    made = {
        make().name
        for make in (
            states.Scheduled, states.AwaitingRetry, states.AwaitingConcurrencySlot, states.Late,
            states.Pending, states.Running, states.Retrying, states.Paused, states.Suspended,
            states.Cancelling, states.Cancelled, states.Completed, states.Failed, states.Crashed,
        )
    }  # fmt: skip
    assert made <= state_details.PREFECT_NAMES


@pytest.mark.parametrize("kind", list(StateType))
@pytest.mark.parametrize("detail", ["", "CreateFailed", "TimedOut"])
@pytest.mark.parametrize("flow", ["train", "tune", "pipeline-run", "another"])
def test_each_word_is_listed_with_the_types_that_it_is_derived_from(
    kind: StateType, detail: str, flow: str
) -> None:
    name, message = state_details.annotate(kind.value, detail, "text")
    state = State(type=kind, name=name, message=message)
    concluding = [{}, statuses.concluding(1, failed=True), statuses.concluding(1, failed=False)]
    for labels in concluding:
        word = statuses.word(flow, state, labels, 1)

        assert word in statuses.words()
        assert kind.value in statuses.types_of(word)


def test_a_word_of_one_type_asks_for_that_type_only() -> None:
    assert statuses.types_of("COMPLETE") == {"COMPLETED"}
    assert statuses.types_of("FAIL TRAIN") == {"FAILED", "CRASHED"}
    assert statuses.types_of("COMPLETE IN PROGRESS") == {"RUNNING"}
    assert "CREATE" not in statuses.words()
