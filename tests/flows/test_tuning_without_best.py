"""What a tuning that ends without a best trial tells."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flows import tuning
from tasks.tuning.tuning_request import Tuning
from tuning.trials import Trial, TrialState

_X = {"name": "x", "type": "double", "min": 0, "max": 1}
_LOSS = {"metric": "loss", "direction": "minimize"}
_MUST = "A trial's output must have the metric: "
_LOGS = "the trials' logs show what it has"


@pytest.mark.parametrize(
    ("trial", "told"),
    [
        ({"mlflow_run_id": "t"},
         f": no trial reported loss. {_MUST}trial 0 reported accuracy, f1"),
        ({}, f": no trial reported loss. {_MUST}{_LOGS}"),
        ({"reports": (float("nan"),), "reason": "It reported no finite loss."},
         ": no trial reported all that it is judged by. Trial 0: It reported no finite loss. "
         f"{_MUST}{_LOGS}"),
        ({"state": TrialState.SUCCEEDED}, ""),
        ({"state": TrialState.FAILED}, ""),
    ],
)  # fmt: skip
def test_it_tells_which_metric_is_lacking(
    monkeypatch: pytest.MonkeyPatch, trial: dict[str, Any], told: str
) -> None:
    reported = SimpleNamespace(metrics={"accuracy": 0.5, "f1": 0.5})
    monkeypatch.setattr(tuning.tracking, "result", lambda _: reported)
    request = Tuning(parameters=[_X], objective=_LOSS, metrics=[{"name": "loss"}], max_trials=3)
    ended: Any = {"state": TrialState.METRICS_UNAVAILABLE, **trial}
    tuner: Any = SimpleNamespace(trials={"0": Trial(0, {}, **ended)})

    assert tuning._why_none(request, tuner) == told
