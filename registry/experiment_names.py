"""Which experiment a name means: the one that had it when the run that names it was created.

A run names its experiment in its parameters, which stay as they were given. It may wait for
hours, be retried after weeks, and be prepared while somebody renames or deletes its experiment.
So an experiment remembers, in a tag for each name that it gave up, until when it had it. A run
that was created before that time means this experiment, whatever it is called now and whoever
has the name now; a newer run means the experiment of that name, or makes one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.exceptions import ObjectNotFound

from infra.mlflow import Experiment, MlflowClient, ViewType
from infra.prefect_client import prefect_client

DEFAULT = "Default"
DEFAULT_ID = "0"

_WAS = "modelyard.was."  # and a digest of the name, which itself may hold any character
_DELETING = "modelyard.deleting"
_DELETED = " (deleted "


def _was_tag(name: str) -> str:
    return _WAS + hashlib.sha256(name.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Holders:
    """Who has a name, and who had it.

    Attributes:
        present: The experiment that has it, perhaps a deleted one.
        former: Experiments that had it, each with the time until which, in that order.
    """

    present: Experiment | None
    former: tuple[tuple[datetime, Experiment], ...]

    def meant(self, created: datetime | None) -> Experiment | None:
        """The experiment that the name means to a run that was created then; None for now."""
        if created is not None:
            for until, experiment in self.former:
                if created <= until:
                    return experiment
        return self.present


def holders(mlflow: MlflowClient, name: str) -> Holders:
    """Who has ``name``, and who had it; deleted experiments as well."""
    tag = _was_tag(name)
    found = mlflow.search_experiments(ViewType.ALL, filter_string=f"tags.`{tag}` LIKE '%'")
    former = sorted(
        ((datetime.fromisoformat(each.tags[tag]), each) for each in found), key=lambda had: had[0]
    )
    return Holders(mlflow.get_experiment_by_name(name), tuple(former))


def meant(mlflow: MlflowClient, name: str, flow_run_id: str = "") -> Experiment | None:
    """The experiment that ``name`` means to a run; a deleted one as well, None if there is none.

    Args:
        mlflow: Where to look.
        name: As the run's parameters have it.
        flow_run_id: The run; without, the name means what it means now.
    """
    found = holders(mlflow, name)
    return found.meant(_created(flow_run_id) if flow_run_id and found.former else None)


def _created(flow_run_id: str) -> datetime | None:
    """When the run was created; None if Prefect does not know it."""
    try:
        with prefect_client() as client:
            return client.read_flow_run(UUID(flow_run_id)).created
    except ObjectNotFound:
        return None


def rename(mlflow: MlflowClient, experiment: Experiment, name: str) -> None:
    """Give ``experiment`` another name. A kill between the two steps changes no meaning."""
    now = datetime.now(UTC).isoformat()
    mlflow.set_experiment_tag(experiment.experiment_id, _was_tag(experiment.name), now)
    mlflow.rename_experiment(experiment.experiment_id, name)


def mark_deleting(mlflow: MlflowClient, experiment: Experiment) -> None:
    """Take its name off an experiment that is about to be deleted; twice is no change.

    MLflow keeps a deleted experiment, and with it its name, which nobody could use again.
    """
    if is_deleting(experiment):
        return
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    last = f"{experiment.name}{_DELETED}{now} #{experiment.experiment_id})"
    mlflow.set_experiment_tag(experiment.experiment_id, _DELETING, last)
    rename(mlflow, experiment, last)


def unmark_deleting(mlflow: MlflowClient, experiment: Experiment) -> None:
    """Give an experiment back the name that :func:`mark_deleting` took off it."""
    rename(mlflow, experiment, own_name(experiment))


def own_name(experiment: Experiment) -> str:
    """What the experiment is called, or was before its deletion began."""
    marked = experiment.name == experiment.tags.get(_DELETING)
    return str(experiment.name.rpartition(_DELETED)[0] if marked else experiment.name)


def is_deleting(experiment: Experiment) -> bool:
    """Whether a deletion of the experiment has begun and not ended."""
    return bool(
        experiment.lifecycle_stage == "active"
        and experiment.name == experiment.tags.get(_DELETING)
    )
