"""The page of the states: the words for every noun, and Prefect's state of each."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from pipelines.states import TaskState
from registry.models import model_states
from registry.runs import statuses
from registry.schedules.slots import Fate, Kind
from schedules import views
from schedules.policy import SkipReason
from tests.reference import markdown
from tuning.completion import TuningOutcome
from tuning.trials import TrialState

_INTRODUCTION = """\
# States

Commands, `--json`, Python and Modelyard's pages use these words. Those of runs are derived from
Prefect's states and never stored: Prefect's own pages and automations keep their names. A word in
brackets, such as `[GoalReached]`, begins the message of Prefect's state, and is the `detail` of
`modelyard runs show --json`.

## Runs
"""
_FAILED = "The work of a run of `{}` failed; `error_code` says why."
_RUNS = {
    statuses.CREATE_REQUESTED: "It waits for its time or a worker; `waiting` says for what.",
    statuses.CREATE_IN_PROGRESS: "A worker has taken it, and its process or pod is starting.",
    statuses.CREATE_FAILED: "It was refused, or its process could not be started; nothing ran.",
    statuses.RUNNING: "Its flow runs.",
    statuses.STOP_IN_PROGRESS: "It is being stopped: its script has the grace period to end.",
    statuses.STOPPED: "A user stopped it. It can be retried.",
    statuses.COMPLETE: "Its work is done.",
    statuses.TIMED_OUT: "It exceeded its `max_minutes`. It can be retried.",
    statuses.FAILED_ELSEWHERE: "A run of a flow that is not Modelyard's failed.",
}
_MLFLOW = {
    statuses.RUNNING: "RUNNING", statuses.STOP_IN_PROGRESS: "RUNNING",
    statuses.COMPLETE: "FINISHED", statuses.STOPPED: "KILLED", statuses.TIMED_OUT: "FAILED",
    statuses.CREATE_FAILED: "none",
}  # fmt: skip
_PREFECT = {
    statuses.CREATE_REQUESTED: "Scheduled, Late, AwaitingRetry",
    statuses.CREATE_FAILED: "Failed", statuses.TIMED_OUT: "TimedOut",
}  # fmt: skip
_MODELS = {
    statuses.CREATE_REQUESTED: "The model has no version yet.",
    statuses.CREATE_IN_PROGRESS: "MLflow is creating the version.",
    statuses.CREATE_FAILED: "MLflow could not create the version.",
    model_states.ACTIVE: "It can be used.",
    model_states.DELETE_IN_PROGRESS: "It is being deleted; if interrupted, delete it again.",
    model_states.DELETE_FAILED: "`deletion_error` says why: delete it again.",
}
_SCHEDULES = {
    views.CREATE_REQUESTED: "It is not registered with Prefect yet.",
    views.CREATE_FAILED: "It could not be registered; `detail` says why.",
    views.ENABLED: f"Its slots get runs; with the detail `{views.EXPIRED}`, it has none left.",
    views.DISABLED: "It was stopped; or it paused itself after failures, which `detail` says.",
    views.DELETED: "It was deleted; the record of its slots stays.",
}
_CONCLUDING = (
    "While a run publishes its results and cleans up after its work, its word is the final one "
    "and `IN PROGRESS`, such as `COMPLETE IN PROGRESS`; Prefect's state is still Running."
)


def write() -> str:
    """Write the page."""
    lines = [_INTRODUCTION]
    lines += markdown.table(("State", "Prefect's state", "MLflow", "Meaning"), _runs())
    lines += [_CONCLUDING, ""]
    lines += _enum("Details of a tuning", TuningOutcome)
    lines += _enum("Trials of a tuning", TrialState)
    lines += _enum("Tasks of a pipeline run", TaskState)
    lines += _words("Schedules", "State", _SCHEDULES)
    lines += _enum("Slots of a schedule", Fate)
    lines += _enum("Kinds of slots", Kind)
    lines += _enum("Reasons of skipped slots", SkipReason)
    lines += _words("Models and their versions", "State", _MODELS)
    return "\n".join(lines)


def _runs() -> Iterator[tuple[str, str, str, str]]:
    failures = {word: flow for flow, word in statuses.FAILED.items()}
    for word in statuses.words():
        if word.endswith(" IN PROGRESS") and word not in _RUNS:
            continue
        meaning = _RUNS.get(word) or _FAILED.format(failures[word])
        mlflow = _MLFLOW.get(word, "FAILED" if statuses.is_failure(word) else "none")
        types = _PREFECT.get(word) or ", ".join(
            kind.capitalize() for kind in sorted(statuses.types_of(word))
        )
        yield markdown.code(word), types, mlflow, markdown.text(meaning)


def _words(title: str, header: str, meanings: dict[str, str]) -> Iterator[str]:
    yield from (f"## {title}", "")
    rows = ((markdown.code(word), markdown.text(text)) for word, text in meanings.items())
    yield from markdown.table((header, "Meaning"), rows)


def _enum(title: str, owner: type[StrEnum]) -> Iterator[str]:
    """The members of an enumeration, which its docstring explains."""
    found = markdown.docstring(owner)
    meanings = dict(found.sections["Attributes"])
    if list(meanings) != [member.name for member in owner]:
        raise LookupError(f"The docstring of {owner.__name__} does not explain each member.")
    yield from (f"## {title}", "", markdown.text(found.summary), "")
    rows = ((markdown.code(one.value), markdown.text(meanings[one.name])) for one in owner)
    yield from markdown.table(("Word", "Meaning"), rows)
