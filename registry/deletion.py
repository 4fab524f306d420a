"""Deletion of every noun, by one table of rules.

A rule says how a noun is found, what blocks its deletion, and how it is removed. Nouns meet only
here: what comes to depend on a noun later adds a guard to the noun's rule.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from infra.errors import ConflictError
from registry import (
    catalogue,
    evaluations,
    experiments,
    history,
    storage_accesses,
    training_templates,
)
from registry.blockers import Blocker, sentences
from registry.models import model_removal
from registry.notifications import notifications
from registry.pipelines import pipeline_removal, pipelines
from registry.runs import runs
from registry.schedules import schedule_removal
from registry.tunings import tuning_removal
from registry.views import JsonObject


@dataclass(frozen=True)
class Guard:
    """A check that can block a deletion.

    Attributes:
        code: The error's code.
        blockers: Returns why the thing may not be deleted; none if it may.
        hint: How to resolve it, with ``{command}`` for the command against the first blocker.
    """

    code: str
    blockers: Callable[..., list[Blocker]]
    hint: str


@dataclass(frozen=True)
class Rule:
    """How a noun is deleted. The functions take what ``find`` returns.

    Attributes:
        find: Resolves a name to an id, and more where the noun has parts. The id is the subject
            in the history.
        guards: Checks before the removal.
        remove: Removes the thing without any check, and returns what the answer has beside
            ``deleted``.
        claim: Keeps new dependents away, so that the second call of the guards is final.
        release: Undoes ``claim`` where a guard refuses then.
        lock: Held from the first guard until the thing is removed.
    """

    find: Callable[..., tuple[Any, ...]]
    guards: tuple[Guard, ...]
    remove: Callable[..., JsonObject | None]
    claim: Callable[..., None] | None = None
    release: Callable[..., None] | None = None
    lock: Callable[..., AbstractContextManager[None]] = lambda *_: nullcontext()


_DELETE_FIRST = "Delete it first: {command}."
_WAIT_OR_STOP = "Wait until they have ended, or stop them: {command}."

_RULES = {
    "run": Rule(
        lambda key: (runs.find(key),),
        (
            Guard(
                "TrialOfTuning",
                tuning_removal.owner_blockers,
                "Delete the tuning, and its trials with it: {command}.",
            ),
            Guard(
                "PartOfEvaluation",
                evaluations.owner_blockers,
                "Wait until it has ended, or stop it: {command}.",
            ),
            Guard("RunGoesOn", runs.active_blockers, "Stop it first: {command}."),
            Guard("RunGoesOn", evaluations.inference_blockers, "Stop it first: {command}."),
            Guard("TrialGoesOn", tuning_removal.active_blockers, "Stop it first: {command}."),
            Guard("HasModel", runs.model_blockers, _DELETE_FIRST),
            Guard("HasModel", tuning_removal.model_blockers, _DELETE_FIRST),
        ),
        evaluations.remove,
        lock=tuning_removal.model_lock,
    ),
    "experiment": Rule(
        lambda key: (experiments.find(key),),
        (
            Guard(
                "DefaultExperiment",
                experiments.protected,
                "Delete its runs instead, which {command} lists.",
            ),
            Guard("ExperimentInUse", experiments.active_blockers, "Stop them first: {command}."),
            Guard("HasSchedule", experiments.schedule_blockers, _DELETE_FIRST),
        ),
        experiments.remove,
        experiments.claim,
        experiments.release,
    ),
    "template": Rule(
        lambda key: (training_templates.find(key),),
        (Guard("HasSchedule", training_templates.schedule_blockers, _DELETE_FIRST),),
        training_templates.remove,
    ),
    "schedule": Rule(
        lambda key: (schedule_removal.find(key),),
        (Guard("RunGoesOn", schedule_removal.active_blockers, _WAIT_OR_STOP),),
        schedule_removal.remove,
        schedule_removal.claim,
        schedule_removal.release,
    ),
    "pipeline": Rule(
        pipeline_removal.find,
        (
            Guard("HasSchedule", pipeline_removal.schedule_blockers, _DELETE_FIRST),
            Guard("RunGoesOn", pipeline_removal.active_blockers, _WAIT_OR_STOP),
        ),
        pipeline_removal.remove,
        lock=lambda _, name, __: pipelines.upload_lock(name),
    ),
    "model": Rule(
        lambda name, version=None: (name, version),
        (
            Guard(
                "ModelInUse",
                model_removal.alias_blockers,
                "Remove the alias first: {command}.",
            ),
            Guard(
                "HasSchedule",
                model_removal.schedule_blockers,
                "Stop it first: {command}; or have its runs register another model: modelyard "
                "schedule update.",
            ),
            Guard(
                "HasSchedule",
                model_removal.predicting_schedule_blockers,
                "Stop it first: {command}; or have its runs predict with another version: "
                "modelyard schedule update.",
            ),
            Guard("RunGoesOn", model_removal.active_blockers, _WAIT_OR_STOP),
        ),
        model_removal.remove,
        model_removal.claim,
        model_removal.release,
        lock=lambda name, _: catalogue.advisory_lock(f"deletion of model:{name}"),
    ),
    "storage": Rule(
        lambda key: (storage_accesses.find(key),),
        (
            Guard(
                "AccessInUse",
                storage_accesses.blockers,
                "Change or delete it first ({command} shows it), or add another access for the "
                "same URIs.",
            ),
        ),
        storage_accesses.remove,
        lock=storage_accesses.lock,
    ),
    "notification": Rule(
        lambda key: (notifications.find(key),), (), notifications.remove, lock=notifications.lock
    ),
}


def delete(noun: str, key: str, **more: Any) -> JsonObject:
    """Delete a thing that nothing depends on.

    Args:
        noun: The noun, such as ``run``.
        key: The thing's name, or its id where users see one.
        more: Which part of it, where the noun has parts, such as a model's ``version``.

    Returns:
        ``{"deleted": True}`` and what the noun adds.

    Raises:
        NotFoundError: If there is no such thing.
        ConflictError: If a guard blocks it; nothing is deleted then.
    """
    rule = _RULES[noun]
    found = rule.find(key, **more)
    with rule.lock(*found):
        _check_guards(rule, found)
        if rule.claim:
            rule.claim(*found)
            try:
                _check_guards(rule, found)
            except BaseException:  # Ctrl-C too: a claim must not outlive a refusal
                if rule.release:
                    rule.release(*found)
                raise
        removed = rule.remove(*found) or {}
    history.record(noun, str(found[0]), "delete", **{**more, **removed})
    return {**removed, "deleted": True}


def _check_guards(rule: Rule, found: tuple[Any, ...]) -> None:
    for guard in rule.guards:
        blockers = guard.blockers(*found)
        if blockers:
            hint = guard.hint.format(command=blockers[0].command)
            raise ConflictError(" ".join(sentences(blockers)), hint, code=guard.code)
