"""A Katib Experiment as the parameters of the flow ``tune``.

Each field that the flow does not support is reported. The parameters lack only the algorithm,
whose files are in a container image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infra.errors import BadInputError
from tuning import space as spaces
from tuning.katib import document, metrics, space, strategy, template
from tuning.katib.document import Section
from tuning.katib.metrics import Say
from tuning.katib.strategy import SearchStrategy
from tuning.katib.template import TrialTemplate
from tuning.space import Grid, Parameter

_KIND = "Experiment"
_VERSION = "kubeflow.org/v1beta1"

# Fields that Kubernetes sets.
_KEPT_BY_KUBERNETES = (
    "creationTimestamp", "finalizers", "generation", "managedFields", "resourceVersion",
    "selfLink", "uid",
)  # fmt: skip


@dataclass(frozen=True)
class ConvertedExperiment:
    """Converted Experiment.

    Attributes:
        parameters: The parameters of the flow ``tune``, without ``algorithm``.
        left_out: The fields that were not converted, and why; a sentence each.
    """

    parameters: dict[str, Any]
    left_out: list[str]


def read(text: str) -> ConvertedExperiment:
    """Read the YAML of one Experiment.

    Raises:
        BadInputError: If it is none, or one that no tuning can be made of; with a code of its own
            for each fault.
    """
    root = document.parse(text)
    _check_kind(root)
    told: dict[str, None] = {}

    def say(line: str) -> None:
        told.setdefault(line)

    parameters = _parameters(root, say)
    return ConvertedExperiment(parameters, list(told))


def _check_kind(root: Section) -> None:
    kind, version = root.tree("kind"), root.tree("apiVersion")
    if kind != _KIND or version != _VERSION:
        raise BadInputError(
            f"The file is of the kind {kind!r} and the apiVersion {version!r}.",
            f"Give one {_KIND} of {_VERSION}.",
            code="KatibNotExperiment",
        )


def _parameters(root: Section, say: Say) -> dict[str, Any]:
    metadata = root.section("metadata")
    name = metadata.text("name") or metadata.required("generateName").rstrip("-")
    metadata.ignore(*_KEPT_BY_KUBERNETES)
    spec = root.section("spec")
    strategy.refuse_nas(spec)
    search = strategy.read(spec, say)
    grid = search.parameters["strategy"] == "grid"
    varied = space.parameters(spec, say, grid=grid)
    trial = template.read(spec, [one["name"] for one in varied], say)
    varied = _named(varied, search, trial, say)
    limits = strategy.limits(spec, say)
    _check(varied, limits, say, grid=grid)
    _say_scale(spec, varied, say)
    found = {
        "name": name,
        **search.parameters,
        "parameters": varied,
        "hyperparameters": trial.hyperparameters,
        "objective": metrics.objective(spec, say),
        "metrics": metrics.metrics(spec, say),
        **limits,
        **trial.parameters,
    }
    _say_unread(root, say)
    return {key: value for key, value in found.items() if value not in ({}, [], None)}


def _named(
    varied: list[dict[str, Any]], search: SearchStrategy, trial: TrialTemplate, say: Say
) -> list[dict[str, Any]]:
    """Rename the parameters as the script does; Hyperband's resource becomes fixed."""
    found = []
    for parameter in varied:
        name = trial.names.get(parameter["name"], parameter["name"])
        if search.resource and parameter["name"] == search.resource and len(varied) > 1:
            most = document.finite(search.most) if search.most else parameter.get("max")
            if most is not None:
                trial.hyperparameters[name] = int(most) if float(most).is_integer() else most
                say(
                    f"Parameter {parameter['name']!r}: every trial is given {name}={most:g}, and "
                    "is stopped earlier if it is worse than others."
                )
                continue
        found.append({**parameter, "name": name})
    return found


def _check(varied: list[dict[str, Any]], limits: dict[str, int], say: Say, *, grid: bool) -> None:
    """Refuse a space that cannot be searched."""
    parameters = [Parameter(**parameter) for parameter in varied]
    spaces.check(parameters, grid=grid)
    most = limits.get("max_trials")
    if grid and most is not None and most < len(Grid(parameters)):
        say(
            f"spec.maxTrialCount: of the grid's {len(Grid(parameters))} points the first {most} "
            "are tried, in their order, not any."
        )


def _say_scale(spec: Section, varied: list[dict[str, Any]], say: Say) -> None:
    """Older releases of Katib search every double of this algorithm on a logarithmic scale."""
    algorithm = spec.section("algorithm").text("algorithmName")
    names = [
        repr(one["name"])
        for one in varied
        if one["type"] == "double" and not one.get("log") and one["min"] > 0
    ]
    if algorithm == "bayesianoptimization" and names:
        say(
            f"Parameters {', '.join(names)}: some releases of Katib search them on a logarithmic "
            "scale here, whatever they say; give log: true for that."
        )


def _say_unread(root: Section, say: Say) -> None:
    if root.tree("status"):
        say("status: the trials that Katib has run are not carried over.")
    for place in root.unread():
        say(f"{place}: there is nothing like it here.")
