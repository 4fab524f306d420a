"""Experiments: MLflow's, with the runs of every flow that belong to them.

What a name means to which run is ``registry/experiment_names.py``.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from infra import connection
from infra.errors import ConflictError, NotFoundError
from infra.mlflow import Experiment, MlflowException
from registry import experiment_names, history, names, tracking, training_templates
from registry.blockers import Blocker, sentences
from registry.runs import run_counts, run_tagging, run_tags, runs, statuses
from registry.runs.run_filters import RunGroup
from registry.runs.run_views import RunView
from registry.schedules import schedules
from registry.tunings import trial_runs, trials
from registry.views import Instant, JsonObject, View

_NOUN = "experiment"

_MOST_NAMED = 20


class ExperimentState(StrEnum):
    """State of an experiment.

    Attributes:
        CREATE_REQUESTED: A waiting run will create it.
        CREATE_IN_PROGRESS: A run that is being prepared will create it.
        ACTIVE: It exists.
        DELETE_IN_PROGRESS: It is being deleted; if interrupted, delete it again, or rename it to
            keep it.
    """

    CREATE_REQUESTED = "CREATE REQUESTED"
    CREATE_IN_PROGRESS = "CREATE IN PROGRESS"
    ACTIVE = "ACTIVE"
    DELETE_IN_PROGRESS = "DELETE IN PROGRESS"


class ExperimentView(View):
    """An experiment, as lists show it.

    Attributes:
        id: Its id in MLflow; None before its first run has created it.
        name: Its name.
        state: The reference's word for its state.
        description: Its description.
        created: When it was created.
        changed: When it was last changed.
    """

    id: str | None = None
    name: str
    state: str
    description: str = ""
    created: Instant | None = None
    changed: Instant | None = None


class ExperimentDetailView(ExperimentView):
    """An experiment with its runs.

    Attributes:
        counts: How many of its runs are in which state.
        runs: The newest of its runs, newest first.
        links: Its pages, by the UI.
        deletion_blockers: Why it cannot be deleted now, as sentences; none if it can.
        history: What users did to it.
    """

    counts: dict[str, int]
    runs: list[RunView]
    links: dict[str, str]
    deletion_blockers: list[str] = []
    history: list[JsonObject]


def create(name: str, description: str = "") -> ExperimentDetailView:
    """Create an experiment.

    Raises:
        BadInputError: If the name or the description is invalid.
        ConflictError: If the name is taken.
    """
    _check(name, description)
    experiment_id = tracking.create_experiment(name, description)
    history.record(_NOUN, experiment_id, "create", name=name)
    return show(name)


def _check(name: str | None, description: str | None) -> None:
    if name is not None:
        names.check_plain(name, "ExperimentInvalid")
    if description is not None:
        names.check_description(description)


def list_all() -> list[ExperimentView]:
    """List every experiment by name, with those that a waiting run will create."""
    mlflow = tracking.client()
    found = tracking.paged(lambda token: mlflow.search_experiments(page_token=token))
    rows = [_row(experiment) for experiment in found]
    rows += [_awaited(name, using) for name, using in _not_made(runs.active())]
    return sorted(rows, key=lambda row: row.name)


def show(name: str, limit: int = 50) -> ExperimentDetailView:
    """Return an experiment with its runs.

    Args:
        name: The experiment.
        limit: How many of its runs, newest first; the counts are of all. A tuning counts as one
            run, although its trials may have runs of their own.

    Raises:
        NotFoundError: If there is none, and no waiting run will create it.
    """
    experiment, active = _current(name), runs.active()
    if experiment is None:
        mine = _awaiting(name, active)
        counts = collections.Counter(run.state for run in mine)
        row, blockers = _awaited(name, mine), sentences(_of_runs(mine))
        return _shown(row, counts, mine[:limit], links={}, past=[], blockers=blockers)
    unopened = _without_trials(_unopened(experiment, [*active, *runs.ended_unopened()]))
    counts = collections.Counter(run.state for run in unopened)
    if run_tagging.is_done():
        tag, _ = _tags(experiment)
        newest = runs.list_all(limit=limit, groups=[RunGroup((tag,))])
        counts.update(run_counts.by_state(tag))
    else:
        newest = _without_trials(runs.with_ids(_opened(experiment)))
        counts.update(run.state for run in newest)
    past = history.of(_NOUN, str(experiment.experiment_id))
    shown = sorted([*unopened, *newest], key=lambda run: str(run.created), reverse=True)[:limit]
    key, links = str(experiment.experiment_id), {"mlflow": _link(experiment)}
    found = [*protected(key), *_in_use(experiment, active), *schedule_blockers(key)]
    blockers = sentences(found)
    return _shown(_row(experiment), counts, shown, links=links, past=past, blockers=blockers)


def group(name: str) -> RunGroup:
    """Return an experiment's runs, those included that have not opened it yet.

    Raises:
        NotFoundError: If there is none, and no waiting run will create it.
    """
    experiment, active = _current(name), runs.active()
    if experiment is None:
        return RunGroup((), frozenset(run.id for run in _awaiting(name, active)))
    unopened = _unopened(experiment, [*active, *runs.ended_unopened()])
    ids = frozenset(run.id for run in unopened)
    if not run_tagging.is_done():
        return RunGroup((), ids | _opened(experiment))
    return RunGroup(_tags(experiment), ids)


def _tags(experiment: Experiment) -> tuple[str, str]:
    """The tags of the runs that have an MLflow run in the experiment, the second of trials."""
    key = str(experiment.experiment_id)
    return run_tags.of_experiment(key), run_tags.of_trials(key)


def _without_trials(found: list[RunView]) -> list[RunView]:
    of_tunings = trials.owners(run.id for run in found)
    return [run for run in found if run.id not in of_tunings]


def _shown(
    row: ExperimentView, counts: Mapping[str, int], shown: list[RunView], *,
    links: dict[str, str], past: list[JsonObject], blockers: list[str],
) -> ExperimentDetailView:  # fmt: skip
    return ExperimentDetailView(
        **dict(row),
        counts=dict(counts),
        runs=shown,
        links=links,
        deletion_blockers=blockers,
        history=past,
    )


def _row(experiment: Experiment) -> ExperimentView:
    deleting = experiment_names.is_deleting(experiment)
    return ExperimentView(
        id=str(experiment.experiment_id),
        name=experiment.name,
        state=ExperimentState.DELETE_IN_PROGRESS if deleting else ExperimentState.ACTIVE,
        description=experiment.tags.get(tracking.NOTE_TAG, ""),
        created=_time(experiment.creation_time),
        changed=_time(experiment.last_update_time),
    )


def _awaited(name: str, using: list[RunView]) -> ExperimentView:
    """Return an experiment that the first of these runs creates when it starts."""
    begun = any(run.state != statuses.CREATE_REQUESTED for run in using)
    state = ExperimentState.CREATE_IN_PROGRESS if begun else ExperimentState.CREATE_REQUESTED
    return ExperimentView(name=name, state=state)


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _link(experiment: Experiment) -> str:
    return connection.mlflow_experiment_page(experiment.experiment_id)


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"There is no experiment {name!r}.", "modelyard experiment list lists the existing ones."
    )


def _current(name: str) -> Experiment | None:
    """The experiment of this name; else one of it whose deletion was interrupted."""
    found = experiment_names.holders(tracking.client(), name)
    if found.present is not None and found.present.lifecycle_stage == "active":
        return found.present
    left = [each for _, each in found.former if experiment_names.is_deleting(each)]
    return left[-1] if left else None


def _meanings() -> Callable[[RunView], Experiment | None]:
    """Which experiment a run means that has not opened one yet; asks once for each name."""
    mlflow = tracking.client()
    holders = functools.cache(lambda name: experiment_names.holders(mlflow, name))
    return lambda run: holders(_named(run.parameters)).meant(run.created)


def _named(parameters: Mapping[str, object]) -> str:
    """The name that a run gives its experiment, itself or through its template."""
    named = parameters.get("experiment")
    template = parameters.get("template")
    if template and not named:
        with contextlib.suppress(NotFoundError):
            named = training_templates.parameters(str(template)).get("experiment")
    # Prefect's API takes any value; such a run is refused when it begins.
    return named if isinstance(named, str) and named else experiment_names.DEFAULT


def _not_made(active: Iterable[RunView]) -> list[tuple[str, list[RunView]]]:
    """Return names that mean no experiment yet to active runs, with those runs."""
    meaning = _meanings()
    by_name: dict[str, list[RunView]] = {}
    for run in active:
        if run.mlflow_run_id is None and meaning(run) is None:
            by_name.setdefault(_named(run.parameters), []).append(run)
    return list(by_name.items())


def _awaiting(name: str, candidates: Iterable[RunView]) -> list[RunView]:
    """Return the active runs among ``candidates`` that will create the experiment ``name``.

    Raises:
        NotFoundError: If none will.
    """
    found = dict(_not_made(run for run in candidates if not run.is_final)).get(name)
    if found is None:
        raise _unknown(name)
    return found


def _opened(experiment: Experiment, among: Collection[str] = ()) -> set[str]:
    """Ids of the flow runs that have an MLflow run in the experiment.

    Args:
        experiment: The experiment.
        among: Only those of these MLflow runs.
    """
    mlflow = tracking.client()
    # Trials beside their tuning have the tuning's flow run, and there may be thousands of them.
    wanted = f"tags.`{tracking.KIND_TAG}` != '{trial_runs.KIND}'"
    if among:
        wanted += f" AND attributes.run_id IN ({', '.join(map(repr, among))})"
    inside = [str(experiment.experiment_id)]
    found = tracking.paged(lambda token: mlflow.search_runs(inside, wanted, page_token=token))
    return {str(run.data.tags[tracking.FLOW_RUN_TAG]) for run in found}


def _unopened(experiment: Experiment, candidates: Iterable[RunView]) -> list[RunView]:
    """Those of the runs that have opened no MLflow run, and mean the experiment."""
    meaning = _meanings()

    def belongs(run: RunView) -> bool:
        meant = meaning(run)
        return meant is not None and meant.experiment_id == experiment.experiment_id

    own = {run.id: run for run in candidates if not _is_opened(run)}
    return [run for run in own.values() if belongs(run)]


def _is_opened(run: RunView) -> bool:
    return run.mlflow_run_id is not None or run_tags.is_opened(run.tags)


def name_now(parameters: Mapping[str, object], flow_run_id: str) -> str | None:
    """What the experiment that a run names in its parameters is called now.

    None if there is no such experiment, or none any more.
    """
    named = str(parameters.get("experiment") or experiment_names.DEFAULT)
    found = experiment_names.meant(tracking.client(), named, flow_run_id)
    if found is None or found.lifecycle_stage != "active" or experiment_names.is_deleting(found):
        return None
    return str(found.name)


def update(name: str, new_name: str | None, description: str | None) -> ExperimentDetailView:
    """Rename or describe an experiment; can be repeated after an interruption.

    Its runs stay its own, waiting ones as well; templates and schedules that name it are changed.

    Raises:
        BadInputError: If the name or the description cannot be used.
        NotFoundError: If there is no such experiment.
        ConflictError: If the new name is taken, or the experiment is ``Default``.
    """
    _check(new_name, description)
    mlflow = tracking.client()
    experiment = _current(name) or _renamed(name, new_name)
    if experiment is None:
        raise _unknown(name)
    experiment_id = str(experiment.experiment_id)
    templates: list[str] = []
    scheduled: list[str] = []
    if new_name is not None:
        if new_name != experiment.name:
            _check_rename(experiment, new_name)
            experiment_names.rename(mlflow, experiment, new_name)
        templates = training_templates.rename("experiment", name, new_name)
        scheduled = schedules.rename("experiment", name, new_name)
    if description is not None:
        mlflow.set_experiment_tag(experiment_id, tracking.NOTE_TAG, description)
    history.record(
        _NOUN, experiment_id, "update",
        was=name, name=new_name, description=description, templates=templates,
        schedules=scheduled,
    )  # fmt: skip
    return show(name if new_name is None else new_name)


def _renamed(name: str, new_name: str | None) -> Experiment | None:
    """The experiment of which a renaming from ``name`` was interrupted half-way."""
    former = experiment_names.holders(tracking.client(), name).former
    active = [each for _, each in former if each.lifecycle_stage == "active"]
    return next((each for each in active if each.name == new_name), None)


def _check_rename(experiment: Experiment, new_name: str) -> None:
    if protected(str(experiment.experiment_id)):
        raise ConflictError(
            "The experiment Default cannot be renamed.",
            "It is where runs go that name none. Make another: modelyard experiment create.",
            code="DefaultExperiment",
        )
    taken = tracking.client().get_experiment_by_name(new_name)
    if taken is not None:
        raise ConflictError(
            f"There is an experiment {new_name!r} already"
            f"{'' if taken.lifecycle_stage == 'active' else ', deleted in MLflow'}.",
            "Choose another name.",
            code="NameTaken",
        )


def find(name: str) -> str:
    """The id of the experiment ``name``, or of one of it whose deletion was interrupted.

    Raises:
        NotFoundError: If there is none.
        ConflictError: If it is about to be made, with the code ``ExperimentInUse``.
    """
    experiment = _current(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    awaiting = _awaiting(name, runs.active())
    raise ConflictError(
        f"The experiment {name!r} is being made. {' '.join(sentences(_of_runs(awaiting)))}",
        f"Stop them first: modelyard runs stop {awaiting[0].id}.",
        code="ExperimentInUse",
    )


def protected(experiment_id: str) -> list[Blocker]:
    """Return why the experiment may never be deleted: it is MLflow's default."""
    if experiment_id != experiment_names.DEFAULT_ID:
        return []
    return [
        Blocker(
            "The experiment Default takes the runs that name none, so it cannot be deleted.",
            ("runs", "list", "--experiment", "Default"),
        )
    ]


def active_blockers(experiment_id: str) -> list[Blocker]:
    """Return why the experiment may not be deleted: active or waiting runs."""
    return _in_use(tracking.client().get_experiment(experiment_id), runs.active())


def _in_use(experiment: Experiment, active: list[RunView]) -> list[Blocker]:
    """Return which of the active runs are the experiment's."""
    own = {run.id for run in _unopened(experiment, active)}
    own |= {run.id for run in active if set(_tags(experiment)) & set(run.tags)}
    # Runs of earlier versions have no tags.
    made = [run.mlflow_run_id for run in active if run.mlflow_run_id]
    own |= _opened(experiment, made) if made else set()
    return _of_runs([run for run in active if run.id in own])


def schedule_blockers(experiment_id: str) -> list[Blocker]:
    """Return why the experiment may not be deleted: schedules whose runs would recreate it."""
    name = experiment_names.own_name(tracking.client().get_experiment(experiment_id))
    given = schedules.names_and_parameters()
    found = [each for each, own in given.items() if schedules.may_be(_named(own), name)]
    return schedules.blockers(sorted(found))


def _of_runs(using: list[RunView]) -> list[Blocker]:
    named = [
        Blocker(f"The run {run.name} ({run.id}) is {run.state}.", ("runs", "stop", run.id))
        for run in using
    ]
    more = [Blocker(f"There are {len(named)} in all.")] if named[_MOST_NAMED:] else []
    return [*named[:_MOST_NAMED], *more]


def claim(experiment_id: str) -> None:
    """Take the experiment's name off it: whoever names it from now on means another one.

    So a look at :func:`active_blockers` afterwards sees every run that can ever belong to it.
    """
    mlflow = tracking.client()
    experiment_names.mark_deleting(mlflow, mlflow.get_experiment(experiment_id))


def release(experiment_id: str) -> None:
    """Undo :func:`claim`, unless another experiment has the name by now."""
    mlflow = tracking.client()
    with contextlib.suppress(MlflowException):
        experiment_names.unmark_deleting(mlflow, mlflow.get_experiment(experiment_id))


def remove(experiment_id: str) -> JsonObject:
    """Delete a claimed experiment in MLflow; called by :mod:`registry.deletion`."""
    mlflow = tracking.client()
    experiment = mlflow.get_experiment(experiment_id)
    mlflow.delete_experiment(experiment_id)
    return {"id": experiment_id, "name": experiment_names.own_name(experiment)}
