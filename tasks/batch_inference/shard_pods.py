"""The shards of a batch inference as pods of a cluster, followed to their end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from infra import site
from infra.errors import ModelyardError, StackError
from infra.instance_types import InstanceType
from infra.storage import local_path
from infra.storage.nas import parse as parse_nas
from infra.workloads.base import NO_GPUS, Backend, Workload, WorkloadHandle
from registry.models.models import ResolvedVersion
from serving.server_log import ServerLog
from tasks.batch_inference import part_input, planning, pod_resources, pod_server, predicting
from tasks.batch_inference.failure_reasons import FailureReasons
from tasks.batch_inference.inference_request import BatchInference
from tasks.batch_inference.part_results import PartFiles
from tasks.batch_inference.planning import Plan, PlannedPiece
from tasks.batch_inference.pod import (
    FAILED,
    HOPELESS,
    SERVER_FAILED,
    TOO_MANY_FAILED,
    PodSpec,
)
from tasks.batch_inference.pod_resources import PodResources
from tasks.batch_inference.pod_server import PodServer
from tasks.batch_inference.predicting import Folders
from tasks.batch_inference.shard import ShardStatus
from tasks.batch_inference.staged_parts import StagedParts

# How often a pod that is lost (evicted, killed, out of memory) before it has predicted another
# part is started again.
_RESTARTS = 5
_POLL_SECONDS = 0.5
_SPEC = "spec.json"
# Errors of pods that are not started again, by their exit status.
_HOPELESS = {
    HOPELESS: predicting.failed,
    SERVER_FAILED: predicting.failed,
    TOO_MANY_FAILED: predicting.too_many_failed,
}
_COMMAND = ("python", "-P", "-m", "tasks.batch_inference.pod", _SPEC)


@dataclass(frozen=True)
class ShardPod:
    """A shard that is a pod.

    Attributes:
        workload: The pod.
        parts: The numbers of its parts.
    """

    workload: Workload
    parts: frozenset[int]


def plan_pods(
    request: BatchInference,
    model: ResolvedVersion,
    plan: Plan,
    folders: Folders,
    area: str,
    image: str,
    shape: InstanceType,
    share: PodResources,
    mlflow_run_id: str = "",
    server: PodServer | None = None,
) -> list[ShardPod]:
    """The pods that predict what is left of a plan.

    Args:
        request: The request.
        model: The model.
        plan: What is predicted; parts with results in the run's folder are left out.
        folders: The run's folders.
        area: URI of the run's staging area.
        image: The pods' image.
        shape: Shape of an instance.
        share: Resources of a pod.
        mlflow_run_id: The MLflow run that gets the pods' usage; "" for none.
        server: The server that is started in each pod; None if its shard loads the model, or
            asks another server.
    """
    beside = None
    if server is not None:
        divided = pod_resources.divide_pod(share)
        share, beside = divided.shard, pod_server.sidecar(server, shape, divided.server)
    resources = share.requested(shape)
    mounts = _mounts(filter(None, (request.input_uri, area, model.source_uri)))
    pods = []
    for number, pieces in enumerate(planning.share(_left(plan, folders), request.pods)):
        folder = folders.root / "pods" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        spec = _spec(request, model, plan, pieces, area, share)
        replace(spec, mlflow_run_id=mlflow_run_id, name=f"pod-{number}", started=server).write(
            folder / _SPEC
        )
        workload = Workload(
            name=f"pod {number}",
            image=image,
            command=_COMMAND,
            arguments=(),
            folder=folder,
            environment=_environment(folder, share.gpus),
            resources=resources,
            folders=mounts,
            is_platform=True,
            sidecar=beside,
        )
        pods.append(ShardPod(workload, frozenset(piece.number for piece in pieces)))
    return pods


def _left(plan: Plan, folders: Folders) -> list[PlannedPiece]:
    """The pieces of the parts that have no results in the run's folder."""
    files = (PartFiles(folders.parts, number) for number in range(plan.part_count))
    left = {one.number for one in files if one.read_summary() is None}
    return [piece for piece in plan.pieces(Path()) if piece.number in left]


def _spec(
    request: BatchInference,
    model: ResolvedVersion,
    plan: Plan,
    pieces: list[PlannedPiece],
    area: str,
    share: PodResources,
) -> PodSpec:
    names = {str(piece.path) for piece in pieces}
    files = part_input.outlines(plan)
    return PodSpec(
        model=model.uri,
        input_uri=request.input_uri,
        input_format=request.input_format,
        files={name: files[name] for name in names},
        pieces=pieces,
        area=area,
        batch_size=request.batch_size,
        seconds=request.timeout_seconds,
        most_failed=request.max_failed,
        cores=max(1, math.floor(share.cpu)),
        has_gpus=bool(share.gpus),
        server=predicting.served(request, model),
        key=request.key,
        drop_fields=tuple(request.drop_fields),
    )


def _environment(folder: Path, gpus: int) -> dict[str, str]:
    home = str(folder / "work")
    hidden = {} if gpus else NO_GPUS
    return {"HOME": home, "MODELYARD_HOME": home, "PYTHONUNBUFFERED": "1", **hidden}


def _mounts(uris: Iterable[str]) -> dict[str, str]:
    """Folders of a NAS to mount, where the run's pod has them: these alone, not the whole NAS."""
    found = {}
    for uri in uris:
        address = parse_nas(uri)
        if address is not None:
            found[str(site.MOUNTS / address.id / address.path.lstrip("/"))] = uri
        elif known := site.nas_id(uri):  # a path in a pod
            path = PurePosixPath(str(local_path(uri)))
            found[str(path)] = f"nas://{known}:/{path.relative_to(site.MOUNTS / known)}"
    return found


class PartCollector:
    """Fetches the results of parts that pods have predicted, and counts them."""

    def __init__(self, staged: StagedParts, folder: Path) -> None:
        """Fetch to ``folder`` what is there; that is of earlier attempts.

        Raises:
            ModelyardError: If it cannot be fetched.
        """
        self._staged = staged
        self._folder = folder
        self._rows = self._failed = self._earlier = 0
        self._reasons = FailureReasons()
        self._outputs: list[str] = []
        self.done: set[int] = set()
        self.collect()
        self._earlier = self._rows + self._failed

    @property
    def status(self) -> ShardStatus:
        """What is predicted."""
        return ShardStatus(
            self._rows, self._failed, self._earlier, "", self._reasons.found, self._outputs
        )

    def collect(self) -> None:
        """Fetch what is new.

        Raises:
            ModelyardError: If it cannot be fetched.
        """
        for number, uri in self._staged.done().items():
            if number in self.done:
                continue
            files = PartFiles(self._folder, number)
            summary = files.read_summary()
            if summary is None:
                self._staged.fetch(uri, files)
                summary = files.read_summary()
            if summary is not None:
                self._rows += summary.rows
                self._failed += summary.failed
                self._reasons.merge(summary.reasons)
                self._outputs = self._outputs or list(summary.statistics.get("outputs", ()))
                self.done.add(number)


class ShardPods:
    """Runs pods to their end. One that is lost is started again, and goes on behind its parts."""

    def __init__(
        self,
        backend: Backend,
        pods: Sequence[ShardPod],
        collector: PartCollector,
        log_line: Callable[[str], object],
        log_file: str,
        redact: Callable[[str], str] = str,
    ) -> None:
        """Prepare to run ``pods``.

        Args:
            backend: Runs them.
            pods: The pods.
            collector: Fetches their results.
            log_line: Receives what they print.
            log_file: Where that is kept, for messages.
            redact: Hides secrets in a line that a server has printed.
        """
        self._backend = backend
        self._pods = {pod.workload.name: pod for pod in pods}
        self._collector = collector
        self._log = log_line
        self._log_file = log_file
        self._redact = redact
        self._last: dict[str, str] = {}
        self._servers = {name: ServerLog() for name in self._pods}
        self._lost: dict[str, tuple[int, int]] = {}  # parts that were done, and losses since
        self._running: dict[str, WorkloadHandle] = {}

    def run(self, is_over: Callable[[], bool], on_poll: Callable[[], object]) -> None:
        """Run all pods to their end, or until the run is over; none is left.

        Args:
            is_over: Whether the run is over.
            on_poll: Called a few times a second.

        Raises:
            RunFailedError: ``BatchInferenceFailed``, if a pod fails; ``TooManyRecordsFailed``, if
                too many of its records do.
            ModelyardError: If the cluster cannot run a pod.
        """
        try:
            for name in self._pods:
                self._start(name)
            while self._running and not is_over():
                for name, handle in list(self._running.items()):
                    if not handle.is_running():
                        del self._running[name]
                        if lost := self._reason_of_loss(name, handle):
                            self._count_loss(name, lost)
                            self._start(name)
                on_poll()
                time.sleep(_POLL_SECONDS)
        finally:
            self._stop()

    def _start(self, name: str) -> None:
        def log(line: str) -> None:
            if line.startswith(pod_server.PREFIX):
                line = self._redact(line)
                self._servers[name].add(line.removeprefix(pod_server.PREFIX))
            else:
                self._last[name] = line
            self._log(f"[{name}] {line}" if len(self._pods) > 1 else line)

        self._running[name] = self._backend.start(self._pods[name].workload, log)

    def _reason_of_loss(self, name: str, handle: WorkloadHandle) -> str:
        """Why a pod that has ended is to be started again; "" if it has done its parts.

        Raises:
            RunFailedError: If it failed by its own words.
            ModelyardError: If the cluster cannot run it.
        """
        try:
            ended = handle.wait()
        except StackError as error:
            if error.code != "StagingFailed":
                raise
            return error.message
        if (hopeless := _HOPELESS.get(ended.code)) is not None:
            reason = self._last.get(name) or ended.reason
            if ended.code == SERVER_FAILED:
                reason = f"{reason}\n{self._servers[name].excerpt()}"
            raise hopeless(reason, self._log_file)
        if not ended.code:
            return ""
        if ended.code == FAILED and (told := self._last.get(name)):
            return told
        return ended.reason or f"It ended with the exit code {ended.code}."

    def _count_loss(self, name: str, reason: str) -> None:
        self._collector.collect()
        done = len(self._pods[name].parts & self._collector.done)
        before, losses = self._lost.get(name, (done, 0))
        losses = losses + 1 if done == before else 1
        self._lost[name] = (done, losses)
        if losses > _RESTARTS:
            raise predicting.failed(
                f"{name} was lost {losses} times at the same part: {reason}", self._log_file
            )
        self._log(f"{name} is started again, behind its {done} parts that are done: {reason}")

    def _stop(self) -> None:
        for handle in self._running.values():
            handle.stop()
        for name, handle in self._running.items():
            try:
                handle.wait()
            except ModelyardError as error:
                self._log(f"{name}: {error.message}")
