"""TensorBoard logs among artifacts in MLflow: of runs whose folder went with their pod."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from infra.mlflow import MlflowException
from registry import tracking
from registry.runs import runs

ARTIFACTS = "tensorboard"


def keep(mlflow_run_id: str, folder: Path, warn: Callable[[str], object]) -> None:
    """Keep the logs in ``folder``, beside those that earlier attempts of the run have kept.

    Args:
        mlflow_run_id: The run.
        folder: What TensorBoard would read; it need not be there.
        warn: Told why they were not kept: a run does not fail for that.
    """
    if not any(path.is_file() for path in folder.rglob("*")):
        return
    try:
        tracking.client().log_artifacts(mlflow_run_id, str(folder), ARTIFACTS)
    except (MlflowException, OSError) as error:
        warn(f"The TensorBoard logs were not kept: {error}")


class Fetched:
    """Logs that are fetched from MLflow, those of each run once. One thread at a time may ask."""

    def __init__(self, root: Path) -> None:
        """Put them below ``root``."""
        self._root = root
        self._known: set[str] = set()

    def folder(self, flow_run_id: str, mlflow_run_id: str | None = None) -> Path:
        """Where the logs of a run that has ended are; the folder is missing if it has none.

        Args:
            flow_run_id: The run, or what else tells it from others.
            mlflow_run_id: Its MLflow run; without, Prefect is asked.
        """
        place = self._root / flow_run_id
        if flow_run_id not in self._known:
            found = mlflow_run_id or runs.mlflow_run_id(flow_run_id)
            if found is None or self._fetch(found, place):
                self._known.add(flow_run_id)
        return place

    @staticmethod
    def _fetch(mlflow_run_id: str, place: Path) -> bool:
        """Whether all is fetched that there is; if MLflow did not answer, it is asked again."""
        partial = place.with_name(f".{place.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        try:
            if tracking.client().list_artifacts(mlflow_run_id, ARTIFACTS):
                tracking.client().download_artifacts(mlflow_run_id, ARTIFACTS, str(partial))
                (partial / ARTIFACTS).rename(place)
        except MlflowException as error:
            return error.is_missing
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return True
