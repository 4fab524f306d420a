"""The nodes of pipeline runs: rows of the catalogue, each as it was last seen.

They are what the graph of a run shows, and what a retry goes on from: a node that has succeeded
keeps what it handed on, under a fingerprint of what it was given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import JSON, Double, Index, Integer, Text, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from registry.catalogue import Base, engine
from registry.pipelines.pipeline_views import PipelineResultView, PipelineTaskView

ROOT = ""  # the path of the pipeline itself
_UNDONE = frozenset({"WAITING", "RUNNING"})


class PipelineNodeModel(Base):
    """One node."""

    __tablename__ = "pipeline_nodes"
    __table_args__ = (Index("pipeline_nodes_fingerprint", "fingerprint"),)

    flow_run_id: Mapped[str] = mapped_column(Text, primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(Integer)
    fingerprint: Mapped[str] = mapped_column(Text)
    inputs: Mapped[dict[str, Any]] = mapped_column(JSON)
    outputs: Mapped[dict[str, Any]] = mapped_column(JSON)
    began: Mapped[float] = mapped_column(Double)
    ended: Mapped[float] = mapped_column(Double)


@dataclass(frozen=True)
class PipelineNode:
    """One node of a run.

    Attributes:
        flow_run_id: The run.
        path: Where it is in the run.
        name: What people call it: the name that they gave it, or its key in the pipeline.
        kind: ``task``, ``dag``, ``loop`` or ``iteration``.
        state: How it stands.
        reason: Why it failed or was left out; "" if it did not.
        attempt: Which attempt of it.
        fingerprint: Of what it runs and is given; "" where it runs nothing itself.
        inputs: What it was given: ``{"parameters": {...}, "artifacts": {...}}``.
        outputs: What it has handed on, in the same form.
        began: When it began, in seconds since 1970; 0 if it has not.
        ended: When it ended; 0 if it has not.
    """

    flow_run_id: str
    path: str
    name: str
    kind: str
    state: str
    reason: str = ""
    attempt: int = 1
    fingerprint: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0


_FIELDS = tuple(PipelineNode.__dataclass_fields__)
_COLUMNS = [getattr(PipelineNodeModel, name) for name in _FIELDS]


def task_run_id(flow_run_id: str, path: str) -> UUID:
    """The id of a node's task run in Prefect, which is the same in every attempt."""
    return uuid5(UUID(flow_run_id), path)


def put(nodes: Iterable[PipelineNode]) -> None:
    """Write nodes as they are now, all at once."""
    rows = [asdict(node) for node in nodes]
    if not rows:
        return
    new = insert(PipelineNodeModel)
    changed = {name: new.excluded[name] for name in _FIELDS if name not in {"flow_run_id", "path"}}
    keys = [PipelineNodeModel.flow_run_id, PipelineNodeModel.path]
    with engine().begin() as connection:
        connection.execute(new.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def of(flow_run_id: str) -> list[PipelineNode]:
    """The nodes of a run, by their paths."""
    return _of(flow_run_id, _COLUMNS)


def in_brief(flow_run_id: str) -> list[PipelineNode]:
    """The same without what goes in and what comes out, which may be much."""
    return _of(flow_run_id, [one for one in _COLUMNS if one.key not in {"inputs", "outputs"}])


def _of(flow_run_id: str, columns: list[Any]) -> list[PipelineNode]:
    wanted = select(*columns).where(PipelineNodeModel.flow_run_id == flow_run_id)
    with engine().connect() as connection:
        found = connection.execute(wanted.order_by(PipelineNodeModel.path))
        return [PipelineNode(**row._mapping) for row in found]


def one(flow_run_id: str, path: str) -> PipelineNode | None:
    """The node of a run at a path; None if nothing is known of it."""
    wanted = select(*_COLUMNS).where(
        PipelineNodeModel.flow_run_id == flow_run_id, PipelineNodeModel.path == path
    )
    with engine().connect() as connection:
        row = connection.execute(wanted).first()
    return PipelineNode(**row._mapping) if row else None


def result(flow_run_id: str, mlflow_run_id: str, over: bool = False) -> PipelineResultView:
    """Return the result of a pipeline run, also while it runs.

    Args:
        flow_run_id: Its flow run.
        mlflow_run_id: Its MLflow run.
        over: Whether it has ended. Nodes that ran when it was killed are then CANCELLED, although
            their rows say that they run.
    """
    nodes = of(flow_run_id)
    root = next((node for node in nodes if node.path == ROOT), None)
    return PipelineResultView(
        mlflow_run_id=mlflow_run_id,
        outputs=root.outputs.get("parameters", {}) if root else {},
        tasks=[
            PipelineTaskView(
                name=node.path,
                title=title(node.path, node.name, node.kind),
                state="CANCELLED" if over and node.state in _UNDONE else node.state,
                reason=node.reason,
            )
            for node in nodes
            if node.path != ROOT
        ],
    )


def title(path: str, name: str, kind: str) -> str:
    """The name that people gave a node; "" where it is called by its key or its number."""
    return "" if kind == "iteration" or name == path.rpartition("/")[2] else name


def newest(fingerprint: str, states: Iterable[str]) -> PipelineNode | None:
    """The node of any run that ended last in one of these states with this fingerprint."""
    wanted = select(*_COLUMNS).where(
        PipelineNodeModel.fingerprint == fingerprint, PipelineNodeModel.state.in_(list(states))
    )
    wanted = wanted.order_by(PipelineNodeModel.ended.desc()).limit(1)
    with engine().connect() as connection:
        row = connection.execute(wanted).first()
    return PipelineNode(**row._mapping) if row else None


def remove(flow_run_id: str) -> None:
    """Forget the nodes of a run."""
    gone = delete(PipelineNodeModel).where(PipelineNodeModel.flow_run_id == flow_run_id)
    with engine().begin() as connection:
        connection.execute(gone)
