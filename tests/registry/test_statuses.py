from __future__ import annotations

import pytest
from prefect import states
from prefect.client.schemas.objects import State, StateType

from registry import statuses


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
        (states.Completed(name="GoalReached"), "COMPLETE", "GoalReached"),
        (states.Failed(), "FAIL TRAIN", ""),
        (states.Failed(name="FailTrain"), "FAIL TRAIN", ""),
        (states.Failed(name="CreateFailed"), "CREATE FAILED", ""),
        (states.Failed(name="TimedOut"), "TIMED OUT", ""),
        (states.Crashed(), "FAIL TRAIN", "Crashed"),
    ],
)
def test_words_of_a_training(state: State | None, word: str, detail: str) -> None:
    assert statuses.word("train", state) == word
    assert statuses.detail(state) == detail


@pytest.mark.parametrize(
    ("state", "word", "detail"),
    [
        (states.Completed(name="GoalReached"), "COMPLETE", "GoalReached"),
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


@pytest.mark.parametrize("kind", list(StateType))
def test_every_state_of_prefect_has_a_word(kind: StateType) -> None:
    assert statuses.word("train", State(type=kind)).isupper()
