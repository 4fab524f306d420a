"""Views of tunings and their trials."""

from __future__ import annotations

from operator import not_

from pydantic import Field

from registry.views import JsonObject, View

# The value of one objective, or of several in their order; None is not a finite number.
Value = float | list[float | None] | None


class TrialCounts(View):
    """Number of trials in each of the reference's groups."""

    done: int
    running: int
    failed: int
    stopped: int = Field(0, exclude_if=not_)


class TuningSummaryView(View):
    """Trials of a tuning, as a list of runs shows them.

    Attributes:
        trials: How many there are.
        best: The best value; None without one, or with several objectives.
    """

    trials: TrialCounts
    best: float | None


class BestTrialView(View):
    """A trial that no other one beats."""

    number: int
    parameters: JsonObject
    value: Value
    mlflow_run_id: str | None


class TrialView(View):
    """A trial of a tuning.

    Attributes:
        number: Its number in the tuning.
        state: One of the states of ``registry.tunings.trials``.
        parameters: Its hyperparameters.
        value: The value of its objective.
        mlflow_run_id: Its MLflow run; None if it has none yet.
        flow_run_id: Its flow run, if it runs in a pool.
        reason: Why it failed or was stopped.
        attempts: How many attempts it took.
    """

    number: int
    state: str
    parameters: JsonObject
    value: Value
    mlflow_run_id: str | None
    flow_run_id: str | None = Field(None, exclude_if=not_)
    reason: str = Field("", exclude_if=not_)
    attempts: int

    def as_best(self) -> BestTrialView:
        """Return the trial as one of the best."""
        return BestTrialView(
            number=self.number, parameters=self.parameters, value=self.value,
            mlflow_run_id=self.mlflow_run_id,
        )  # fmt: skip


class TuningResultView(View):
    """The result of a tuning, also while it runs.

    Attributes:
        mlflow_run_id: Its MLflow run.
        best: The best trial; None without one, or with several objectives.
        front: The Pareto front; None with one objective.
        model_uri: The model version that was made of the best trial; None if none was.
        trials: Every trial, by number.
    """

    mlflow_run_id: str
    best: BestTrialView | None
    front: list[BestTrialView] | None = Field(None, exclude_if=lambda front: front is None)
    model_uri: str | None = None
    trials: list[TrialView]


class TuningOverviewView(View):
    """What a page shows of a tuning.

    Attributes:
        counts: How many trials there are.
        metrics: Names of its objectives; empty where they are unknown.
        best: The best trials, by number: one, or with several objectives the front.
        trials: The newest trials, newest first.
    """

    counts: TrialCounts
    metrics: list[str]
    best: list[TrialView]
    trials: list[TrialView]
