"""Prefect worker of a cluster's pools, of the type ``modelyard-kubernetes``.

It creates the Job of a run and is done: the reconciler follows the run from there, also after a
restart of the worker. It is a worker of Prefect's own base class. That of ``prefect_kubernetes``
would cost every process a second and 88 MB for its client, and would watch the same Jobs as the
reconciler, with rules of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.abc
from prefect.client.schemas.objects import Flow, FlowRun, State, StateType
from prefect.states import Failed, Scheduled
from prefect.workers.base import (
    BaseJobConfiguration,
    BaseVariables,
    BaseWorker,
    BaseWorkerResult,
)
from pydantic import Field
from sqlalchemy.exc import OperationalError

from infra.errors import BadInputError, ModelyardError
from infra.event_driven_worker import EventDrivenWorker
from infra.kubernetes import pool_template
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import AttemptSpec, Placement
from infra.kubernetes.attempts import AttemptStore
from infra.kubernetes.cluster import secrets_among
from infra.kubernetes.jobs import Jobs
from infra.state_details import CREATE_FAILED, annotate

TYPE = pool_template.TYPE

_FIRST_WAIT = 5.0
_LONGEST_WAIT = 60.0

# Maps a flow's name and its run to a placement; refuses what the cluster can never satisfy.
Place = Callable[[str, FlowRun], Placement]


class ClusterJobVariables(BaseVariables):
    """Job variables that a pool or a deployment may set."""

    image: str = Field(
        "",
        description="The container image of runs that name none; empty for the cluster's.",
    )
    priority_class: str = Field(
        "", description="The priority class of their pods; empty for the cluster's."
    )


class ClusterJobConfiguration(BaseJobConfiguration):
    """Configuration of one run. Of Prefect's fields only the environment is used."""

    image: str = ""
    priority_class: str = ""

    def prepare_for_flow_run(self, flow_run: FlowRun, *args: Any, **kwargs: Any) -> None:
        """Complete the configuration for a run.

        The worker's own Prefect settings, with their secrets, do not go into the manifest: a
        pod has its settings from the cluster's config map and secret.
        """
        env = {name: value for name, value in self.env.items() if value is not None}
        super().prepare_for_flow_run(flow_run, *args, **kwargs)
        self.env = {**env}


class ClusterWorkerResult(BaseWorkerResult):
    """Result of a run that was started, requeued or refused."""


@dataclass(frozen=True)
class WorkerDependencies:
    """Dependencies of the workers of all pools.

    Attributes:
        jobs: The cluster's Jobs.
        place: The placement of a run.
        attempts: Where the runs' attempts are kept.
    """

    jobs: Jobs
    place: Place
    attempts: AttemptStore


class KubernetesWorker(
    EventDrivenWorker,
    BaseWorker[ClusterJobConfiguration, ClusterJobVariables, ClusterWorkerResult],
):
    """Worker of one pool."""

    type = TYPE
    job_configuration = ClusterJobConfiguration
    job_configuration_variables = ClusterJobVariables
    _description = "Runs flows as Jobs of a Kubernetes cluster, sized by their own resources."

    def __init__(
        self, work_pool_name: str, *, dependencies: WorkerDependencies, **more: Any
    ) -> None:
        """Prepare the worker of an existing pool.

        Args:
            work_pool_name: The pool.
            dependencies: Its dependencies.
            more: Options of Prefect's worker.
        """
        super().__init__(work_pool_name, create_pool_if_not_found=False, **more)
        self._dependencies = dependencies
        self._tries: dict[str, int] = {}

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ClusterJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> ClusterWorkerResult:
        """Start a run that Prefect has granted this worker, and return at once.

        A run that the cluster refuses ends Failed with the reason and is not tried again. While
        the cluster does not answer, a run goes back into the queue.
        """
        # The run may have been changed since, and the queue's answer has no labels.
        now = await self.client.read_flow_run(flow_run.id)
        flow = await self.client.read_flow(now.flow_id)
        name, attempt = "", 0
        try:
            begin = self._dependencies.attempts.begin
            attempt = await asyncio.to_thread(begin, str(now.id), str(now.state_id))
            name = await asyncio.to_thread(self._start, now, flow, attempt, configuration)
            self._tries.pop(str(now.id), None)
        except ModelyardError as error:
            if isinstance(error, ClusterError) and (error.transient or error.later):
                await self._queue_again(now, attempt, error)
            else:
                name, message = annotate("FAILED", CREATE_FAILED, f"{error.code}: {error}")
                await self._end(now, Failed(name=name, message=message))
        except OperationalError:
            at = datetime.now(UTC) + timedelta(seconds=_LONGEST_WAIT)
            away = "The catalogue's database does not answer."
            await self._end(now, Scheduled(scheduled_time=at, message=away))
        if task_status:
            task_status.started(name)
        return ClusterWorkerResult(identifier=name, status_code=0)

    def _start(
        self, run: FlowRun, flow: Flow, attempt: int, configuration: ClusterJobConfiguration
    ) -> str:
        env = {name: value for name, value in configuration.env.items() if value is not None}
        if secrets := secrets_among(env):
            raise BadInputError(
                f"The variable {secrets[0]}, of the pool's or the deployment's, looks like a "
                "secret: everyone who can read Jobs could read it.",
                "Keep it in a Secret of the cluster, and name that in secret_env of its file.",
                code="SecretInEnvironment",
            )
        placement = self._dependencies.place(flow.name, run)
        self._end_others(str(run.id), attempt)
        known = run.labels or {}
        wanted = AttemptSpec(
            flow_run_id=str(run.id),
            attempt=attempt,
            pool=self._work_pool_name,
            flow=flow.name,
            run_name=run.name,
            experiment=str(run.parameters.get("experiment") or ""),
            schedule=str(known.get("modelyard.schedule") or ""),
            slot=str(known.get("modelyard.slot") or ""),
            placement=_with_image(placement, configuration.image),
            priority_class=configuration.priority_class,
            env=env,
        )
        return self._dependencies.jobs.start(wanted)

    def _end_others(self, flow_run_id: str, attempt: int) -> None:
        """Stop active earlier attempts, such as on a node that was thought lost.

        Raises:
            ClusterError: If there is one; it is being stopped.
        """
        others = self._dependencies.jobs.others(flow_run_id, attempt)
        for one in others:
            self._dependencies.jobs.stop(one, datetime.now(UTC))
        if others:
            raise ClusterError(
                "Its earlier attempt is still being ended.",
                "Nothing has to be done: the worker starts it once that has ended.",
                later=True,
            )

    async def _queue_again(self, run: FlowRun, attempt: int, error: ModelyardError) -> None:
        tries = self._tries.get(str(run.id), 0)
        self._tries[str(run.id)] = tries + 1
        seconds = min(_LONGEST_WAIT, _FIRST_WAIT * 2**tries)
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        await self._end(run, Scheduled(scheduled_time=at, message=f"{error}"))
        record = self._dependencies.attempts.record_waiting
        await asyncio.to_thread(record, str(run.id), attempt, str(error))

    async def _end(self, run: FlowRun, state: State[Any]) -> None:
        """Set the state of a run that was not started, unless it has been stopped since."""
        now = await self.client.read_flow_run(run.id)
        if now.state and now.state.type == StateType.PENDING:
            self.get_flow_run_logger(run).info("%s", state.message)
            await self.client.set_flow_run_state(run.id, state, force=True)


def _with_image(placement: Placement, image: str) -> Placement:
    return placement if placement.image or not image else replace(placement, image=image)
