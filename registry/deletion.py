"""What may be deleted, and when: one table, and the one way to delete anything.

Each noun tells how it is found, what stands against its removal, and how it is removed; only
here do nouns meet. Whatever comes to depend on a noun later adds its guard to the noun's rule.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from infra.errors import ConflictError
from registry import catalogue, experiments, history, training_templates
from registry.models import model_removal
from registry.pipelines import pipeline_removal, pipelines
from registry.runs import runs
from registry.schedules import schedule_removal
from registry.tunings import tuning_removal


@dataclass(frozen=True)
class Guard:
    """Something that a thing's removal would break.

    Attributes:
        code: The error's code.
        reasons: Why the thing may not go, as sentences; none if it may.
        hint: How to mend it, with ``{key}`` for what the thing was called; or what tells it.
    """

    code: str
    reasons: Callable[..., list[str]]
    hint: str | Callable[..., str]


@dataclass(frozen=True)
class Rule:
    """How a noun is deleted. All but ``find`` are told what ``find`` returns.

    Attributes:
        find: What the noun's functions call the thing, of what a person calls it: an id, and
            more where the noun has parts. History knows the thing by the first.
        guards: What is asked before.
        remove: Removes it, whatever depends on it; what the answer says beside ``deleted``.
        claim: Keeps new dependents away, so that the guards, asked again, have the last word.
        release: Undoes ``claim`` where they refuse.
        alone: Keeps others away from the first guard until it is removed.
    """

    find: Callable[..., tuple[Any, ...]]
    guards: tuple[Guard, ...]
    remove: Callable[..., dict[str, Any] | None]
    claim: Callable[..., None] | None = None
    release: Callable[..., None] | None = None
    alone: Callable[..., AbstractContextManager[None]] = lambda *_: nullcontext()


_RULES = {
    "run": Rule(
        lambda key: (runs.find(key),),
        (
            Guard("TrialOfTuning", tuning_removal.owned, tuning_removal.how_to_delete_owned),
            Guard("RunGoesOn", runs.going_on, "Stop it first: modelyard runs stop {key}."),
            Guard(
                "TrialGoesOn", tuning_removal.going_on, "Stop it first: modelyard runs stop ID."
            ),
            Guard("HasModel", runs.models_of, "Delete the model first: modelyard model delete."),
            Guard(
                "HasModel",
                tuning_removal.models_of,
                "Delete the models first: modelyard model delete.",
            ),
        ),
        tuning_removal.remove,
        alone=tuning_removal.alone,
    ),
    "experiment": Rule(
        lambda key: (experiments.find(key),),
        (
            Guard("DefaultExperiment", experiments.protected, "Delete its runs instead."),
            Guard(
                "ExperimentInUse", experiments.users, "Stop them first: modelyard runs stop ID."
            ),
            Guard(
                "HasSchedule",
                experiments.schedules_of,
                "Delete the schedules first: modelyard schedule delete NAME.",
            ),
        ),
        experiments.remove,
        experiments.claim,
        experiments.release,
    ),
    "template": Rule(
        lambda key: (training_templates.find(key),),
        (
            Guard(
                "HasSchedule",
                training_templates.schedules_of,
                "Delete the schedules first: modelyard schedule delete NAME.",
            ),
        ),
        training_templates.remove,
    ),
    "schedule": Rule(
        lambda key: (schedule_removal.find(key),),
        (
            Guard(
                "RunGoesOn",
                schedule_removal.going_on,
                "Wait for them, or stop them: modelyard runs stop ID.",
            ),
        ),
        schedule_removal.remove,
        schedule_removal.claim,
        schedule_removal.release,
    ),
    "pipeline": Rule(
        pipeline_removal.find,
        (
            Guard(
                "HasSchedule",
                pipeline_removal.schedules_of,
                "Delete the schedules first: modelyard schedule delete NAME.",
            ),
            Guard(
                "RunGoesOn",
                pipeline_removal.runs_of,
                "Wait for them, or stop them: modelyard runs stop ID.",
            ),
        ),
        pipeline_removal.remove,
        alone=lambda _, name, __: pipelines.by_oneself(name),
    ),
    "model": Rule(
        lambda name, version=None: (name, version),
        (
            Guard(
                "ModelInUse",
                model_removal.uses,
                "Take the alias away first: modelyard model unalias.",
            ),
        ),
        model_removal.remove,
        model_removal.claim,
        model_removal.release,
        alone=lambda name, _: catalogue.advisory_lock(f"deletion of model:{name}"),
    ),
}


def delete(noun: str, key: str, **more: Any) -> dict[str, Any]:
    """Delete a thing that nothing depends on.

    Args:
        noun: Such as ``run``.
        key: The thing's name, or its id where it has one that people see.
        more: Which part of it, where the noun has parts, such as a model's ``version``.

    Returns:
        ``{"deleted": True}`` and what the noun tells of it.

    Raises:
        NotFoundError: If there is no such thing.
        ConflictError: If something stands against it; nothing is deleted then.
    """
    rule = _RULES[noun]
    found = rule.find(key, **more)
    with rule.alone(*found):
        _ask(rule, found, key)
        if rule.claim:
            rule.claim(*found)
            try:
                _ask(rule, found, key)
            except BaseException:  # Ctrl-C as well: nothing stays half-claimed
                if rule.release:
                    rule.release(*found)
                raise
        told = rule.remove(*found) or {}
    history.record(noun, str(found[0]), "delete", **{**more, **told})
    return {**told, "deleted": True}


def _ask(rule: Rule, found: tuple[Any, ...], key: str) -> None:
    for guard in rule.guards:
        reasons = guard.reasons(*found)
        if reasons:
            hint = guard.hint(*found) if callable(guard.hint) else guard.hint.format(key=key)
            raise ConflictError(" ".join(reasons), hint, code=guard.code)
