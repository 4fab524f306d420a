"""Pipeline runs that are deleted, and their artifacts that are removed by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed, Running

from infra import home as homes
from infra.errors import ConflictError
from registry import deletion, flow_kinds, tracking
from registry.pipelines import pipeline_artifacts, pipeline_nodes
from registry.pipelines.pipeline_nodes import PipelineNode
from registry.tracking import Opening
from tests.registry.fake_runs import PrefectClient
from tests.registry.server import MlflowServer
from tests.registry.tuned import is_deleted


@pytest.fixture
def prefect(mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    return PrefectClient.installed(monkeypatch)


def opened(prefect: PrefectClient, name: str, state: State[None] | None = None) -> tuple[str, str]:
    """A pipeline run with everything that it has; its ids here and in MLflow."""
    run = prefect.add(flow_kinds.PIPELINE_RUN.name, name, state or Completed())
    opening = Opening(run, flow_kinds.PIPELINE_RUN.name, name, "Default", "", "me", {"a": 1})
    tracked = tracking.open_run(opening, retried=False)
    prefect.label(run, tracked.run_id)
    folder = homes.current().runs / run / "artifacts" / "task"
    folder.mkdir(parents=True)
    (folder / "data").write_text("12345")
    for place in ("artifacts/task", "reports/task", "plots/task"):
        tracking.client().log_artifact(tracked.run_id, str(folder / "data"), place)
    pipeline_nodes.put([PipelineNode(run, "task", "task", "task", "SUCCEEDED")])
    prefect.artifacts |= {f"{run}-{number}": run for number in range(450)}
    return run, tracked.run_id


def kept(mlflow_run_id: str, mlflow: MlflowServer) -> set[str]:
    root = next(mlflow.artifacts.rglob(mlflow_run_id), Path("/nowhere"))
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_run_is_deleted_with_everything_of_it(
    prefect: PrefectClient, name: str, mlflow: MlflowServer
) -> None:
    run, mlflow_run = opened(prefect, name)
    other, other_mlflow = opened(prefect, f"{name}-2")

    assert deletion.delete("run", run) == {"id": run, "name": name, "deleted": True}

    assert is_deleted(mlflow_run)
    assert kept(mlflow_run, mlflow) == set()
    assert not (homes.current().runs / run).exists()
    assert pipeline_nodes.of(run) == []
    assert set(prefect.artifacts.values()) == {other}
    assert (homes.current().runs / other / "artifacts" / "task" / "data").exists()
    assert len(pipeline_nodes.of(other)) == 1
    assert len(kept(other_mlflow, mlflow)) == 3


def test_a_run_that_goes_on_is_not_deleted(prefect: PrefectClient, name: str) -> None:
    run, _ = opened(prefect, name, Running())
    with pytest.raises(ConflictError) as raised:
        deletion.delete("run", run)
    assert raised.value.code == "RunGoesOn"
    assert len(pipeline_nodes.of(run)) == 1


def test_copies_in_mlflow_go_and_plots_stay(
    prefect: PrefectClient, name: str, mlflow: MlflowServer
) -> None:
    _, mlflow_run = opened(prefect, name)
    folders = ("artifacts", "reports")
    assert pipeline_artifacts.copies(mlflow_run, folders) == (2, 10)
    pipeline_artifacts.remove_copies(mlflow_run, folders)
    assert {name.partition("/")[2] for name in kept(mlflow_run, mlflow)} == {"plots/task/data"}
    assert pipeline_artifacts.copies(mlflow_run, folders) == (0, 0)
    pipeline_artifacts.remove_copies(mlflow_run, folders)


def test_copies_of_a_run_that_mlflow_has_no_more_are_none(mlflow: MlflowServer) -> None:
    assert pipeline_artifacts.copies("0" * 32, ("artifacts",)) == (0, 0)
    pipeline_artifacts.remove_copies("0" * 32, ("artifacts",))
