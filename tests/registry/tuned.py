"""Tunings as they are in the catalogue, in MLflow and, in a way, in Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State

from infra import home as homes
from registry import tracking
from registry.models.models import SourceRun
from registry.tracking import Opening, Tracked
from registry.tunings import trial_runs, trials
from registry.tunings.trial_runs import Parent
from tests.registry.fake_runs import PrefectClient
from tests.registry.server import MlflowServer

TUNE = "tune"


def row(number: int, **fields: Any) -> dict[str, Any]:
    """A trial's row."""
    return {
        "number": number, "parameters": {"lr": 0.5}, "state": "SUCCEEDED", "values": (0.25,),
        "reports": (), "violations": (), "reason": "", "mlflow_run_id": None,
        "flow_run_id": None, "attempts": 1, "losses": 0,
        "created": 1.0, "started": 2.0, "ended": 3.0, **fields,
    }  # fmt: skip


def opening(flow_run_id: str, name: str, **more: Any) -> Opening:
    fields = {"kind": TUNE, "experiment": "Default", **more}
    return Opening(flow_run_id, name=name, description="", user="me", parameters={}, **fields)


class Tuning:
    """A tuning that has ended, without trials at first."""

    def __init__(
        self, prefect: PrefectClient, name: str, scratch: Path, state: State[Any] | None = None
    ) -> None:
        self.prefect = prefect
        self.name = name
        self.scratch = scratch
        self.id = prefect.add(TUNE, name, state=state)
        self.run_id = self.open().run_id
        prefect.label(self.id, self.run_id)
        self.folder = homes.current().runs / self.id
        self.folder.mkdir(parents=True)

    def open(self, *, retried: bool = False, **more: Any) -> Tracked:
        return tracking.open_run(opening(self.id, self.name, **more), retried=retried)

    @property
    def parent(self) -> Parent:
        return trial_runs.parent(self.run_id)

    def trial(self, number: int, *, model: bool = False, **fields: Any) -> str:
        """A trial that ran beside the tuning; its MLflow run."""
        run_id = trial_runs.open_trial(self.parent, number)
        (self.folder / "trials" / str(number)).mkdir(parents=True)
        self._leave(run_id, model=model)
        trials.save(self.id, row(number, mlflow_run_id=run_id, **fields))
        return run_id

    def pool_trial(self, number: int, *, model: bool = False, **fields: Any) -> tuple[str, str]:
        """A trial that ran in a pool; its flow run and its MLflow run."""
        name = f"{self.name} trial {number}"
        flow_run_id = self.prefect.add("train", name, state=fields.pop("flow_state", None))
        opened = opening(flow_run_id, name, kind="train", parent=self.run_id, trial=number)
        run_id = tracking.open_run(opened, retried=False).run_id
        self.prefect.label(flow_run_id, run_id)
        (homes.current().runs / flow_run_id).mkdir(parents=True)
        self._leave(run_id, model=model)
        ids = {"mlflow_run_id": run_id, "flow_run_id": flow_run_id}
        trials.save(self.id, row(number, **{**ids, **fields}))
        return flow_run_id, run_id

    def _leave(self, run_id: str, *, model: bool) -> None:
        folder = self.scratch / run_id
        folder.mkdir(parents=True)
        (folder / "log").write_text("a line")
        tracking.log_files(run_id, folder, "logs")
        if model:
            from tests.registry import model_files  # torch, which not every test here needs

            model_files.scikit_learn(folder / "model", self.name)
            tracking.log_files(run_id, folder / "model", "model")

    def origin(self, run_id: str) -> SourceRun:
        return SourceRun(run_id, self.id, f"{_artifacts(run_id)}/model")


def _artifacts(run_id: str) -> str:
    return str(tracking.client().get_run(run_id).info.artifact_uri)


def files(run_id: str, server: MlflowServer) -> set[str]:
    """What the server's folder holds of a run."""
    folder = server.artifacts / _artifacts(run_id).split("mlflow-artifacts:/")[1]
    return {path.name for path in folder.rglob("*") if path.is_file()}


def is_deleted(run_id: str) -> bool:
    return bool(tracking.client().get_run(run_id).info.lifecycle_stage == "deleted")
