"""Request of a tuning, and its validation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, StrictInt

from infra.errors import BadInputError
from infra.home import Home
from infra.settings import Settings
from registry import names
from tasks.logs import Logs
from tasks.parameters import Minutes, Scalar, Text, check_minutes, read
from tasks.resources import Resources
from tasks.training import training_request, training_templates
from tasks.training.training_request import (
    Algorithm,
    ModelRegistration,
    Training,
    variable_name,
)
from tasks.training.training_templates import LeftOut
from tuning import objectives, search, space
from tuning.completion import TuningLimits
from tuning.early_stopping import EarlyStopping
from tuning.metrics import MetricPattern
from tuning.objectives import Constraint, Objective
from tuning.search import Strategy
from tuning.space import Parameter, Point, Value
from tuning.trials import Trial

MOST_PARALLEL = 256
LARGEST_SEED = 2**63 - 1
_GOLDEN = 0.618

# Parameters that can be changed while the tuning runs.
CHANGEABLE = ("max_trials", "max_failed_trials", "parallel_trials")

Dispatch = Literal["auto", "inline", "pool"]
Seed = Annotated[StrictInt, Field(ge=0, le=LARGEST_SEED)] | None
Count = Annotated[StrictInt, Field(ge=1, le=10**6)]
Failures = Annotated[StrictInt, Field(ge=0, le=10**6)]


def _as_list(given: Any) -> Any:
    """Make a list of objectives; a single one may be given without a list.

    Raises:
        BadInputError: With the code ``ObjectiveInvalid`` for another type.
    """
    if isinstance(given, dict | Objective):
        return [given]
    if isinstance(given, list | tuple):
        return given
    raise BadInputError(
        "Invalid parameter `objective`: expected a metric and its direction, or a list of them.",
        'Give both, as in {"metric": "loss", "direction": "minimize"}.',
        code="ObjectiveInvalid",
    )


Objectives = Annotated[
    list[Objective],
    BeforeValidator(_as_list, json_schema_input_type=Objective | list[Objective]),
]


class Tuning(Training):
    """Request of a tuning; its fields of a training apply to each trial."""

    FORM_ORDER: ClassVar[tuple[str, ...]] = (
        "name", "description", "experiment", "template", "strategy", "seed", "algorithm",
        "parameters", "hyperparameters", "metrics", "objective", "constraints", "max_trials",
        "max_failed_trials", "parallel_trials", "early_stopping", "stop_running", "dispatch",
        "warm_start", "resources", "datasets", "checkpoint_input_uri", "checkpoint_uri",
        "output_uri", "overwrite", "logs", "max_minutes", "trial_max_minutes",
        "model",
    )  # fmt: skip

    name: Text = Field(
        default="",
        description="The tuning's name, unique in its experiment; given by Prefect if empty.",
    )
    experiment: Text = Field(
        default="Default",
        description="The MLflow experiment that the tuning belongs to; created if missing.",
    )
    strategy: Strategy = Field(
        default="bayesian",
        description="Search strategy. bayesian chooses a sampler automatically; gp, tpe and sobol "
        "select one.",
    )
    seed: Seed = Field(
        default=None, description="Seed of all random numbers; empty for one derived from the run."
    )
    algorithm: Algorithm = Field(
        default=Algorithm(),
        description="Required, here or in the template. The script that each trial runs: uri and "
        "entry_point, or provided.",
    )
    parameters: list[Parameter] = Field(
        default=[],
        description="Required. The search space: hyperparameters with their ranges or values.",
    )
    hyperparameters: dict[str, Scalar] = Field(
        default={}, description="Further hyperparameters, the same for every trial."
    )
    metrics: list[MetricPattern] = Field(
        default=[],
        description="Metrics to collect from the script's output, the objective among them. A "
        "provided algorithm declares its own.",
    )
    objective: Objectives = Field(
        default=[],
        description="Required. What to optimize: one metric and its direction (Objective), or "
        "several of them (list).",
    )
    constraints: list[Constraint] = Field(default=[], description="Bounds of other metrics.")
    max_trials: Count | None = Field(
        default=None,
        description="The most trials. A grid ends by itself; an infinite space needs this or "
        "max_minutes.",
    )
    max_failed_trials: Failures | None = Field(
        default=None, description="Fail after this many failed trials; empty for never."
    )
    parallel_trials: Annotated[StrictInt, Field(ge=1, le=MOST_PARALLEL)] = Field(
        default=1, description="Number of trials that run at once."
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="Rule that stops unpromising trials early; empty for none."
    )
    stop_running: bool = Field(
        default=True, description="Stop running trials when the tuning's end is decided."
    )
    dispatch: Dispatch = Field(
        default="auto",
        description="inline runs trials in the tuning's process, pool as separate runs; auto "
        "chooses by the pool.",
    )
    warm_start: Text = Field(
        default="",
        description="An earlier tuning, by name or id, whose trials the search learns from.",
    )
    resources: Resources = Field(
        default=Resources(), description="The machines, processes and GPUs of each trial."
    )
    checkpoint_input_uri: Text = Field(
        default="", description="URI of checkpoints that every trial begins from."
    )
    checkpoint_uri: Text = Field(
        default="",
        description="URI for the scripts' own checkpoints, with a folder for each trial.",
    )
    output_uri: Text = Field(
        default="", description="URI for copies of the models, with a folder for each trial."
    )
    logs: Logs = Field(default=Logs(), description="Where the scripts' output goes.")
    trial_max_minutes: Minutes = Field(
        default=None,
        description="Time limit of one trial in minutes, after which it fails; empty for none.",
    )
    model: ModelRegistration = Field(
        default=ModelRegistration(),
        description="The registered model that gets the best trial's model as its next version "
        "when the tuning completes; without a name, none is registered.",
    )

    @property
    def registers_best(self) -> bool:
        """Whether the best trial's model is registered when the tuning completes."""
        return bool(self.model.name) and self.model.register == "always"

    @property
    def limits(self) -> TuningLimits:
        """Limits of the tuning."""
        return TuningLimits(self.max_trials, self.max_failed_trials, self.parallel_trials)

    def training(self, point: Point) -> Training:
        """Request of the training that evaluates ``point``."""
        shared = {name: getattr(self, name) for name in Training.model_fields}
        return Training.model_construct(
            **{
                **shared,
                "name": "",
                "template": "",
                "model": ModelRegistration(),
                "hyperparameters": {**self.hyperparameters, **point},
                "max_minutes": self.trial_max_minutes,
            }
        )


_LEFT_OUT = training_templates.empty_in_form(Tuning)


def of_trial(training: Training, trial: Trial, folder: str) -> Training:
    """Derive the training of one trial, which writes to its own folders.

    Args:
        training: Training that all trials share.
        trial: The trial.
        folder: Name of the trial's folders.
    """
    own = {
        field: f"{uri.rstrip('/')}/{folder}" if (uri := getattr(training, field)) else ""
        for field in ("checkpoint_uri", "output_uri")
    }
    hyperparameters: dict[str, Scalar] = {**training.hyperparameters, **trial.parameters}
    return training.model_copy(update={**own, "hyperparameters": hyperparameters})


def fill(given: Mapping[str, Any], left_out: LeftOut | None) -> dict[str, Any]:
    """Complete the parameters of a tuning from its training template.

    The template's time limit applies to each trial, and its values of tuned hyperparameters are
    dropped.
    """
    filled = training_templates.fill(given, left_out, {"max_minutes": "trial_max_minutes"})
    fixed, parameters = filled.get("hyperparameters"), filled.get("parameters")
    own = given.get("hyperparameters") or {}
    if filled.get("template") and isinstance(fixed, Mapping) and isinstance(parameters, list):
        tuned = {one.get("name") for one in parameters if isinstance(one, Mapping)}
        filled["hyperparameters"] = {
            name: value for name, value in fixed.items() if name in own or name not in tuned
        }
    return filled


def from_template(given: Mapping[str, Any], form: bool) -> dict[str, Any]:
    """Complete the parameters of a tuning from its training template.

    Args:
        given: Parameters of the run.
        form: Whether a form gave them, in which a field that is left out is empty.
    """
    return fill(given, _LEFT_OUT if form else None)


def limits(parameters: Mapping[str, Any]) -> TuningLimits:
    """Read the limits of a run's current parameters, which can change while it runs.

    Raises:
        BadInputError: If a limit is invalid.
    """
    given = {name: parameters[name] for name in CHANGEABLE if name in parameters}
    return read(Tuning, given).limits


def describe_limits(limits: TuningLimits) -> str:
    """Describe limits in one line."""
    words = {name: getattr(limits, name) for name in CHANGEABLE}
    return ", ".join(f"{name} {value}" for name, value in words.items() if value is not None)


def check(tuning: Tuning, home: Home, settings: Settings) -> None:
    """Refuse a tuning that cannot work, before any resource is allocated.

    Raises:
        BadInputError: With a code of its own for each fault.
        DiskFullError: If the home's disk has less free space than a trial or the settings need.
    """
    check_static(tuning)
    points = list(_samples(tuning.parameters, grid=tuning.strategy == "grid"))
    for point in points:
        training_request.resolved(tuning.training(point))
    training = tuning.training(points[0])
    training_request.check(training, home, settings)
    objectives.check(
        tuning.objective,
        tuning.constraints,
        [metric.name for metric in training_request.resolved(training).metrics],
    )


def check_static(tuning: Tuning) -> None:
    """Refuse a request that is invalid on every machine.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    space.check(tuning.parameters, grid=tuning.strategy == "grid")
    _check_fixed(tuning)
    check_limits(tuning)
    training_request.check_static(tuning)
    training_request.check_static(tuning.training(_longest(tuning.parameters)))
    search.check(tuning.strategy, len(tuning.objective))
    if tuning.early_stopping and len(tuning.objective) > 1:
        raise BadInputError(
            "Early stopping supports a single objective; several are given.",
            "Leave early_stopping out, or give one objective.",
            code="EarlyStoppingOfSeveral",
        )
    if tuning.registers_best and len(tuning.objective) > 1:
        raise BadInputError(
            "model.name: A tuning with several objectives has no best trial to register.",
            "Leave it out, and choose a trial when it is complete: modelyard model create.",
            code="ModelOfSeveral",
        )
    if tuning.warm_start:
        names.check_plain(tuning.warm_start, "WarmStartInvalid")


def _samples(parameters: Sequence[Parameter], *, grid: bool) -> Iterator[Point]:
    """Yield points that together have every value of each parameter's :func:`_sample`."""
    axes = {one.name: _sample(one, grid=grid) for one in parameters}
    for number in range(max(map(len, axes.values()))):
        yield {name: axis[number % len(axis)] for name, axis in axes.items()}


def _sample(parameter: Parameter, *, grid: bool) -> Sequence[Value]:
    """Values to validate: those of a list, or a range's bounds and a value between them."""
    if parameter.values:
        return parameter.values
    if grid:
        steps = parameter.grid()
        return [steps[0], steps[min(1, len(steps) - 1)], steps[len(steps) - 1]]
    low, high = parameter.min, parameter.max
    assert low is not None
    assert high is not None
    between = [low + _GOLDEN * (high - low)] if parameter.type == "double" else []
    return [low, high, *between]


def _longest(parameters: Sequence[Parameter]) -> Point:
    """A point with the longest representation."""
    return {
        one.name: max(one.values, key=lambda value: len(json.dumps(value)))
        if one.values
        else one.min  # type: ignore[misc]
        for one in parameters
    }


def _check_fixed(tuning: Tuning) -> None:
    fixed = {variable_name(key): key for key in tuning.hyperparameters}
    for parameter in tuning.parameters:
        taken = fixed.get(variable_name(parameter.name))
        if taken is not None:
            raise BadInputError(
                f"The parameter {parameter.name!r} is tuned, but the hyperparameter {taken!r} has "
                "a fixed value.",
                "Remove it from hyperparameters, or from parameters.",
                code="ParameterFixed",
            )


def check_limits(tuning: Tuning) -> None:
    """Refuse limits that contradict each other, or that never end the tuning.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    most = tuning.max_trials
    for name in ("parallel_trials", "max_failed_trials"):
        value = getattr(tuning, name)
        if most is not None and value is not None and value > most:
            raise BadInputError(
                f"{name} ({value}) is larger than max_trials ({most}).",
                f"Lower {name} to at most {most}, or raise max_trials.",
                code="LimitAboveMaxTrials",
            )
    size = space.size(tuning.parameters)
    endless = tuning.strategy != "grid" and (size is None or size > space.LARGEST_GRID)
    if most is None and tuning.max_minutes is None and endless:
        raise BadInputError(
            "The tuning would never end: its space is infinite, and max_trials is not set.",
            "Give max_trials or max_minutes.",
            code="MaxTrialsMissing",
        )
    check_minutes("trial_max_minutes", tuning.trial_max_minutes)


def check_parallel(resources: Resources, parallel: int, most_processes: int) -> None:
    """Refuse more parallel inline trials than one machine runs.

    Raises:
        BadInputError: With the code ``ParallelTrialsTooMany``.
    """
    if resources.processes * parallel > most_processes:
        raise BadInputError(
            f"{parallel} trials with {resources.processes} processes each exceed the "
            f"{most_processes} processes that this machine runs.",
            "Lower parallel_trials, or the processes of each trial.",
            code="ParallelTrialsTooMany",
        )
