"""The search's algorithm, its early stopping and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.errors import BadInputError
from tuning.katib.document import Section
from tuning.katib.metrics import Say

_HYPERBAND = "hyperband"

# What each algorithm is here, and what of it is not.
_ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "random": ("random", ""),
    "grid": ("grid", ""),
    "tpe": ("tpe", ""),
    "multivariate-tpe": ("tpe", ""),
    "sobol": ("sobol", ""),
    "bayesianoptimization": ("bayesian", ""),
    _HYPERBAND: ("random", ""),
    "cmaes": ("bayesian", "there is no CMA-ES; the strategy bayesian searches instead"),
    "pbt": (
        "bayesian",
        "no trial continues from another's checkpoint; the strategy bayesian searches instead",
    ),
}
_UNKNOWN = ("bayesian", "it is none of Katib's own; the strategy bayesian searches instead")
_NAS = ("enas", "darts")

_MEDIAN = {"min_trials_required": ("min_trials", 3), "start_step": ("start_step", 4)}

# What each limit is here, the least that it can be, and what it is where it is not given.
_LIMITS = {
    "maxFailedTrialCount": ("max_failed_trials", 0, None),
    "parallelTrialCount": ("parallel_trials", 1, 3),
}

_RESUME = {
    "": "",
    "Never": "",
    "LongRunning": "a retry continues a tuning that was interrupted, and warm_start begins "
    "from one that has ended",
}
_RESUME["FromVolume"] = _RESUME["LongRunning"]


@dataclass
class SearchStrategy:
    """Search strategy of an Experiment.

    Attributes:
        parameters: The flow's parameters for it.
        resource: Hyperband's resource, by Katib's name of the parameter; "" if there is none.
        most: How much of the resource a trial gets at most; "" if that is not said.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    resource: str = ""
    most: str = ""


def refuse_nas(spec: Section) -> None:
    """Refuse a search for an architecture.

    Raises:
        BadInputError: If it is one.
    """
    name = spec.section("algorithm").text("algorithmName")
    if name in _NAS or spec.tree("nasConfig") is not None:
        raise BadInputError(
            "The Experiment searches for a network's architecture.",
            "Give the architecture's choices as categorical parameters of a script.",
            code="KatibNas",
        )


def read(spec: Section, say: Say) -> SearchStrategy:
    """How it searches.

    Raises:
        BadInputError: If a field is missing or not what it must be.
    """
    section = spec.section("algorithm")
    name = section.required("algorithmName")
    strategy, note = _ALGORITHMS.get(name, _UNKNOWN)
    if note:
        say(f"{section.place('algorithmName')} {name!r}: {note}.")
    found = SearchStrategy({"strategy": strategy})
    settings = _settings(section)
    if "random_state" in settings and settings["random_state"].text("value"):
        found.parameters["seed"] = settings.pop("random_state").whole("value", 0)
    if name == _HYPERBAND:
        found.resource = _value(settings.pop("resource_name", None))
        found.most = _value(settings.pop("r_l", None))
        found.parameters["early_stopping"] = {"rule": _HYPERBAND}
    for setting in settings.values():
        say(
            f"{section.place('algorithmSettings')} {setting.text('name')}="
            f"{setting.text('value')}: the strategies here have no settings."
        )
    _early_stopping(spec, found, say)
    return found


def _settings(section: Section) -> dict[str, Section]:
    return {one.required("name"): one for one in section.sections("algorithmSettings")}


def _value(setting: Section | None) -> str:
    return setting.text("value") if setting else ""


def _early_stopping(spec: Section, found: SearchStrategy, say: Say) -> None:
    section = spec.section("earlyStopping")
    name = section.text("algorithmName")
    if not name:
        return
    if name != "medianstop":
        section.ignore("algorithmSettings")
        say(f"{section.place('algorithmName')}: there is no {name!r} here; give early_stopping.")
        return
    if "early_stopping" in found.parameters:
        say(
            f"{section.place('algorithmName')}: medianstop is left out, as hyperband stops trials."
        )
        return
    settings = _settings(section)
    rule: dict[str, Any] = {"rule": "median"}
    for setting, (key, default) in _MEDIAN.items():
        given = settings.pop(setting).whole("value", 1) if setting in settings else None
        rule[key] = default if given is None else given
    for one in settings.values():
        say(f"{one.place('value')} {one.text('value')}: medianstop has no {one.text('name')}.")
    found.parameters["early_stopping"] = rule


def limits(spec: Section, say: Say) -> dict[str, int]:
    """The flow's limits.

    Raises:
        BadInputError: If one is no whole number, or too small.
    """
    found: dict[str, int] = {}
    most = spec.whole("maxTrialCount", 1)
    if most is None:
        say(
            "spec.maxTrialCount is not given, and Katib would run for ever: give max_trials or "
            "max_minutes."
        )
    else:
        found["max_trials"] = most
    for limit, (name, least, default) in _LIMITS.items():
        given = spec.whole(limit, least)
        value = default if given is None else given
        if given is not None and most is not None and given > most:
            say(f"spec.{limit}: {given} is more than the {most} trials that there are.")
        if value is not None:
            found[name] = value if most is None else min(value, most)
    policy = spec.text("resumePolicy")
    if note := _RESUME.get(policy, "it is none of Katib's own"):
        say(f"spec.resumePolicy {policy}: {note}.")
    return found
