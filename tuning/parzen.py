"""Optuna's tree-structured Parzen estimator (TPE), fed with Modelyard's trials.

The study is in memory. Its trials stand in the order of ours, whatever the order in which they
end, and every point comes from a sampler with a seed of its own, so that a study that is built
anew from the same trials gives the same points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)

from tuning.objectives import Direction
from tuning.space import Parameter, Point, Value
from tuning.trials import OBSERVED, Trial, TrialState

_HUGE = 1e300
_STATE = optuna.trial.TrialState


class ParzenEstimators:
    """In-memory Optuna study with a TPE sampler."""

    def __init__(self, parameters: Sequence[Parameter], directions: Sequence[Direction]) -> None:
        """Search the space of ``parameters``."""
        self._axes = {parameter.name: _ValueCodec(parameter) for parameter in parameters}
        self._distributions = {name: axis.distribution for name, axis in self._axes.items()}
        self._varied = {
            name: each for name, each in self._distributions.items() if not each.single()
        }
        self._several = len(directions) > 1
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            directions=list(directions),
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=optuna.pruners.NopPruner(),
        )
        self._running: dict[int, optuna.trial.Trial] = {}
        self._asked: tuple[Point, optuna.trial.Trial] | None = None

    def points(self, seed: int) -> Iterator[Point]:
        """Generate points to try next, without repeating any, as many as the caller takes."""
        while True:
            self._study.sampler = _SeededTpeSampler(self._varied, seed, together=not self._several)
            try:
                with np.errstate(all="ignore"):
                    trial = self._study.ask(self._distributions)
            except ValueError:
                return  # a range is too narrow for its arithmetic
            point = {name: axis.value(trial.params[name]) for name, axis in self._axes.items()}
            self._asked = point, trial
            yield point
            self.refuse()  # or nobody would ask for another
            seed = (seed + 1) % 2**32

    def refuse(self) -> None:
        """Discard the last point."""
        if self._asked is not None:
            self._study.tell(self._asked[1], state=_STATE.FAIL)
            self._asked = None

    def begin(self, number: int, point: Point) -> None:
        """Report that the trial ``number`` has started with ``point``."""
        if self._asked is not None and self._asked[0] is point:
            self._running[number] = self._asked[1]
            self._asked = None
            return
        self.refuse()
        self._study.enqueue_trial(self._codes(point))
        self._study.sampler = optuna.samplers.RandomSampler(seed=0)  # has nothing left to choose
        self._running[number] = self._study.ask(self._distributions)

    def end(self, trial: Trial) -> None:
        """Report an ended trial; if it was started here, its point is known already."""
        state, values, reports, violations = self._lesson(trial)
        running = self._running.pop(trial.number, None)
        if running is None:
            self.learn(trial)
            return
        for step, value in reports.items():
            running.report(value, step)
        for name, violation in violations.items():
            running.set_constraint(name, violation)
        self._study.tell(running, values, state)

    def learn(self, trial: Trial) -> None:
        """Report a trial that was never started here."""
        state, values, reports, violations = self._lesson(trial)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                values=values,
                params=self._codes(trial.parameters),
                distributions=self._distributions,
                intermediate_values=reports,
                constraints=violations,
            )
        )

    def _codes(self, point: Point) -> dict[str, float]:
        return {name: axis.code(point[name]) for name, axis in self._axes.items()}

    def _lesson(
        self, trial: Trial
    ) -> tuple[optuna.trial.TrialState, list[float] | None, dict[int, float], dict[str, float]]:
        """Convert a trial to Optuna's state, values, reports and violations."""
        if trial.state not in OBSERVED or trial.values is None:
            return _STATE.FAIL, None, {}, {}
        violations = {
            str(index): max(-_HUGE, min(violation, _HUGE))
            for index, violation in enumerate(trial.violations)
        }
        reports = {step: value for step, value in enumerate(trial.reports) if math.isfinite(value)}
        # With several objectives Optuna knows of no trial that was stopped early.
        if trial.state is TrialState.EARLY_STOPPED and reports and not self._several:
            return _STATE.PRUNED, None, reports, violations
        return _STATE.COMPLETE, list(trial.values), {}, violations


class _SeededTpeSampler(optuna.samplers.TPESampler):
    """TPE sampler that knows the space without inferring it from the trials."""

    def __init__(self, varied: dict[str, BaseDistribution], seed: int, *, together: bool) -> None:
        super().__init__(seed=seed)
        self._varied = varied if together else {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the parameters that are sampled jointly: all with one objective, else none."""
        return self._varied


class _ValueCodec:
    """Encoding of a parameter's values for Optuna: listed values as their indexes."""

    def __init__(self, parameter: Parameter) -> None:
        listed = parameter.values
        self._values = sorted(listed) if parameter.type == "discrete" else listed
        self._indices = {value: index for index, value in enumerate(self._values)}
        self.distribution: BaseDistribution = parameter.distribution()
        if parameter.type == "categorical":
            self.distribution = CategoricalDistribution(range(len(listed)))
        elif parameter.type == "discrete":
            self.distribution = IntDistribution(0, len(listed) - 1)

    def code(self, value: Value) -> float:
        return self._indices[value] if self._values else value  # type: ignore[return-value]

    def value(self, code: float) -> Value:
        if self._values:
            return self._values[int(code)]
        if isinstance(self.distribution, IntDistribution):
            return min(max(int(code), self.distribution.low), self.distribution.high)
        return code
