"""What is known of a run beside its graph: facts, links, parameters and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from infra.errors import StackError
from modelyard.pages import details, listing, logs
from modelyard.pages.evaluations import EvaluationPageView
from modelyard.pages.listing import Ref
from modelyard.pages.predictions import PredictionsView
from modelyard.pages.servers import TrackedRun
from modelyard.pages.trials import TrialsView
from pipelines.drawing import text
from registry import flow_kinds
from registry.runs import labels
from registry.runs.run_views import RunView

# The flows whose scripts may write TensorBoard logs, and those with an MLflow run.
_WITH_LOGS = {flow_kinds.TRAIN.name, flow_kinds.TUNE.name}
_TRACKED = {kind.name for kind in flow_kinds.ALL} - {flow_kinds.PIPELINE_CLEANUP.name}
_DEFAULT_EXPERIMENT = "Default"
# Parameters that the page shows as facts.
_FACTS = {"name", "description", "experiment"}
_NOT_GIVEN: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True)
class RunPageView:
    """The page of a run without a graph.

    Attributes:
        run: The run.
        facts: Its description and its experiment: label and text.
        links: Its pages in other UIs: label and URL.
        parameters: Its parameters by dotted keys, as ``-p`` would give them; lists as YAML.
        metrics: The last value of each metric.
        tensorboard: The command that shows its TensorBoard logs; empty where it has none.
        trials: Its trials; None if it is no tuning.
        predictions: Its results; None if it is no batch inference.
        evaluation: Its results; None if it is no evaluation.
        lines: The last lines of its log, if it has failed.
        schedule: The schedule that made it; None without one.
        parents: The runs that it is a part of: what it is of them, and their pages.
    """

    run: RunView
    facts: Sequence[tuple[str, str]]
    links: Sequence[tuple[str, str]]
    parameters: Sequence[tuple[str, str]]
    metrics: Sequence[tuple[str, str]]
    tensorboard: str
    trials: TrialsView | None = None
    predictions: PredictionsView | None = None
    evaluation: EvaluationPageView | None = None
    lines: Sequence[str] = ()
    schedule: Ref | None = None
    parents: Sequence[tuple[str, Ref]] = ()


def of(run: RunView, tracked: TrackedRun | None, prefect_url: str) -> RunPageView:
    """Return the page of a run, without what else is asked of it.

    Args:
        run: The run.
        tracked: The same as MLflow has it; None before that, or where MLflow does not answer.
        prefect_url: Its page in Prefect's UI.
    """
    return RunPageView(
        run=run,
        facts=facts(run, tracked),
        links=[
            ("Log", logs.address(run.id)),
            ("Run and log in Prefect", prefect_url),
            *links(tracked),
        ],
        parameters=sheet(
            {name: value for name, value in run.parameters.items() if name not in _FACTS}
        ),
        metrics=[(text.plain(name), f"{value:.6g}") for name, value in tracked.metrics.items()]
        if tracked
        else [],
        tensorboard=f"modelyard tensorboard {run.id}" if run.flow in _WITH_LOGS else "",
    )


def facts(run: RunView, tracked: TrackedRun | None) -> list[tuple[str, str]]:
    """Return a run's description and its experiment: label and text."""
    described = tracked.description if tracked else run.parameters.get("description")
    found = [
        ("Description", details.shown(described or "")),
        ("Experiment", tracked.experiment if tracked else _named_experiment(run)),
    ]
    return [(name, value) for name, value in found if value]


def links(tracked: TrackedRun | None) -> list[tuple[str, str]]:
    """Return a run's pages in MLflow's UI: label and URL."""
    if tracked is None:
        return []
    made = listing.model_ref(tracked.tags.get(labels.MODEL_TAG, ""))
    found = [
        ("Metrics in MLflow", tracked.url),
        ("Model in MLflow", made.link if made else ""),
        ("Experiment in MLflow", tracked.experiment_url),
    ]
    return [(name, address) for name, address in found if address]


def parents(run: RunView, find: Callable[[str], RunView | None]) -> list[tuple[str, Ref]]:
    """Return the runs that a run is a part of: what it is of them, and their pages.

    Args:
        run: The run.
        find: Returns a run by its id.
    """
    found = (("Trial of", run.tuning_id), ("Predicts for", run.evaluation_id))
    return [(what, _parent(run_id, find)) for what, run_id in found if run_id]


def _parent(run_id: str, find: Callable[[str], RunView | None]) -> Ref:
    try:
        run = find(run_id)
    except StackError:
        run = None
    name = listing.title(run) if run else run_id
    return Ref(text.plain(name), f"/runs/{quote(run_id, safe='')}")


def _named_experiment(run: RunView) -> str:
    """Return the experiment that a run's parameters name, which it has not opened yet."""
    named = run.parameters.get("experiment")
    if isinstance(named, str) and named:
        return named
    if template := run.parameters.get("template"):
        return f"that of the template {template}, or {_DEFAULT_EXPERIMENT}"
    return _DEFAULT_EXPERIMENT if run.flow in _TRACKED else ""


def sheet(parameters: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return parameters by dotted keys, as ``-p`` would give them, without empty ones."""
    found: list[tuple[str, str]] = []
    for name, value in parameters.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found += sheet(value, f"{key}.")
        elif value not in _NOT_GIVEN:
            found.append((text.plain(key), details.written(_given(value))))
    return found


def _given(value: Any) -> Any:
    """Leave out what a list's mappings do not give; put names first: Prefect keeps no order."""
    if isinstance(value, list):
        return [_given(one) for one in value]
    if not isinstance(value, dict):
        return value
    names = sorted(value, key=lambda name: name != "name")
    return {name: _given(value[name]) for name in names if value[name] not in _NOT_GIVEN}
