"""The page of the states: the words for every noun, and Prefect's state of each."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from pipelines.states import TaskState
from registry.experiments import ExperimentState
from registry.models.model_states import ModelState
from registry.pipelines.pipelines import PipelineState
from registry.runs import statuses
from registry.schedules.slots import Fate, Kind
from schedules.policy import SkipReason
from schedules.views import ScheduleState
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
_MLFLOW = {
    statuses.RUNNING: "RUNNING", statuses.STOP_IN_PROGRESS: "RUNNING",
    statuses.COMPLETE: "FINISHED", statuses.STOPPED: "KILLED", statuses.TIMED_OUT: "FAILED",
    statuses.CREATE_FAILED: "none",
}  # fmt: skip
_PREFECT = {
    statuses.CREATE_REQUESTED: "Scheduled, Late, AwaitingRetry",
    statuses.CREATE_FAILED: "Failed", statuses.TIMED_OUT: "TimedOut",
}  # fmt: skip
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
    lines += _enum("Experiments", ExperimentState)
    lines += _enum("Pipelines and their versions", PipelineState)
    lines += _enum("Models and their versions", ModelState)
    lines += _enum("Schedules", ScheduleState)
    lines += _enum("Slots of a schedule", Fate)
    lines += _enum("Kinds of slots", Kind)
    lines += _enum("Reasons of skipped slots", SkipReason)
    return "\n".join(lines)


def _runs() -> Iterator[tuple[str, str, str, str]]:
    for word, meaning in statuses.MEANINGS.items():
        mlflow = _MLFLOW.get(word, "FAILED" if statuses.is_failure(word) else "none")
        types = _PREFECT.get(word) or ", ".join(
            kind.capitalize() for kind in sorted(statuses.types_of(word))
        )
        yield markdown.code(word), types, mlflow, markdown.text(meaning)


def _enum(title: str, owner: type[StrEnum]) -> Iterator[str]:
    """The members of an enumeration, which its docstring explains."""
    found = markdown.docstring(owner)
    meanings = dict(found.sections["Attributes"])
    if list(meanings) != [member.name for member in owner]:
        raise LookupError(f"The docstring of {owner.__name__} does not explain each member.")
    yield from (f"## {title}", "", markdown.text(found.summary), "")
    rows = ((markdown.code(one.value), markdown.text(meanings[one.name])) for one in owner)
    yield from markdown.table(("Word", "Meaning"), rows)
