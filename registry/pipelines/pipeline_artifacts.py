"""Artifacts of pipeline runs whose time is over: which runs those are, and what is kept of them.

The run itself stays, with its nodes, parameters, metrics and log. The row of a node whose
artifacts are gone says since when, and neither caching nor a retry believes in it any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from sqlalchemy import Text, cast, select, update

from infra.mlflow import MlflowException, artifacts
from infra.prefect_client import prefect_client
from registry import tracking
from registry.catalogue import engine
from registry.flow_kinds import PIPELINE_RUN
from registry.pipelines.pipeline_nodes import PipelineNodeModel

REMOVED = "removed"  # in a node's outputs: since when its artifacts are gone
_PAGE = 200
_ROWS = 1000
_TABLE = PipelineNodeModel
_KEY = (_TABLE.flow_run_id, _TABLE.path)


@dataclass(frozen=True)
class Old:
    """A pipeline run that has ended long ago.

    Attributes:
        id: Its id.
        name: Its name.
        mlflow_run_id: Its MLflow run; "" if it has none.
    """

    id: str
    name: str
    mlflow_run_id: str = ""


def ended_before(instant: datetime) -> list[Old]:
    """Pipeline runs that have ended before an instant, the oldest first."""
    over = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES)))
    ours = FlowFilter(name=FlowFilterName(any_=[PIPELINE_RUN.name]))
    wanted = FlowRunFilter(
        state=over,
        end_time=FlowRunFilterEndTime(before_=instant),
    )
    found: dict[UUID, Old] = {}
    offset = 0
    with prefect_client() as client:
        while True:
            page = client.read_flow_runs(
                flow_filter=ours, flow_run_filter=wanted, limit=_PAGE, offset=offset,
                sort=FlowRunSort.END_TIME_DESC,
            )  # fmt: skip
            for run in page:
                label = (run.labels or {}).get(tracking.MLFLOW_RUN_LABEL)
                found[run.id] = Old(str(run.id), run.name, str(label or ""))
            if len(page) < _PAGE:
                return list(reversed(found.values()))
            offset += _PAGE


def is_over(run_id: str) -> bool:
    """Whether a run has ended, or is gone; it may have been told to go on meanwhile."""
    with prefect_client() as client:
        try:
            state = client.read_flow_run(UUID(run_id)).state
        except ObjectNotFound:
            return True
    return bool(state and state.is_final())


def of(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The artifacts in a node's inputs or outputs."""
    values = data.get("artifacts", {}).values()
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def speaking(run_ids: Collection[str], folder: str) -> set[str]:
    """Those of the runs with a node that hands on what lies in a folder, as far as it says."""
    text = cast(_TABLE.outputs, Text)
    below = json.dumps(f"{folder}/")[1:-1]  # as it is within a text of JSON
    wanted = select(_TABLE.flow_run_id).distinct()
    wanted = wanted.where(
        _TABLE.flow_run_id.in_(run_ids),
        text.contains(below, autoescape=True),
        text.not_like(f'%"{REMOVED}"%'),
    )
    with engine().connect() as connection:
        return set(connection.scalars(wanted))


def uris_elsewhere(run_ids: Collection[str]) -> Iterator[str]:
    """The addresses of the artifacts that nodes of all other runs were given, or hand on."""
    wanted = select(_TABLE.inputs, _TABLE.outputs).where(_TABLE.flow_run_id.not_in(run_ids))
    with engine().connect() as connection:
        for row in connection.execution_options(yield_per=_ROWS).execute(wanted):
            yield from (str(one["uri"]) for data in row for one in of(data))


def disown(run_id: str, goes: Callable[[str], bool]) -> None:
    """Let nobody take over what nodes of a run have handed on, if it goes with an artifact.

    Args:
        run_id: The run.
        goes: Whether the artifact at an address is to be removed.
    """
    _change(run_id, goes, lambda _: {"fingerprint": ""})


def mark(run_id: str, goes: Callable[[str], bool], now: datetime) -> None:
    """Write down at the nodes of a run that their artifacts are gone."""
    since = now.isoformat(timespec="seconds")
    _change(
        run_id, goes, lambda outputs: {"fingerprint": "", "outputs": {**outputs, REMOVED: since}}
    )


def _change(
    run_id: str,
    goes: Callable[[str], bool],
    values: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    wanted = select(*_KEY, _TABLE.outputs).where(_TABLE.flow_run_id == run_id)
    with engine().begin() as connection:
        for row in connection.execute(wanted).all():
            gone = any(goes(str(one["uri"])) for one in of(row.outputs))
            if gone and REMOVED not in row.outputs:
                own = (_TABLE.flow_run_id == run_id, _TABLE.path == row.path)
                connection.execute(update(_TABLE).where(*own).values(**values(row.outputs)))


def copies(mlflow_run_id: str, folders: Sequence[str]) -> tuple[int, int]:
    """How many files an MLflow run has in these folders, and of how many bytes."""
    sizes = [size for _, repository in _repositories(mlflow_run_id, folders)
             for _, size in tracking.files_of(repository)]  # fmt: skip
    return len(sizes), sum(sizes)


def remove_copies(mlflow_run_id: str, folders: Sequence[str]) -> None:
    """Remove these folders of an MLflow run; what is gone already is no error."""
    for _, repository in _repositories(mlflow_run_id, folders):
        repository.delete_artifacts()


def _repositories(mlflow_run_id: str, folders: Sequence[str]) -> list[tuple[str, Any]]:
    mlflow = tracking.client()
    try:
        uri = mlflow.get_run(mlflow_run_id).info.artifact_uri
    except MlflowException as error:
        if not error.is_missing:
            raise
        return []
    return [(name, artifacts.repository(f"{uri}/{name}", mlflow.tracking_uri)) for name in folders]
