"""Predicts the parts of a plan with shards, each a process with a predictor beside it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import secrets
from infra.connection import user_environment
from infra.errors import DiskFullError, RunFailedError
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.process_group import ProcessSpec
from registry.flow_kinds import BATCH_INFERENCE
from registry.models import model_parameters
from registry.models.models import ResolvedVersion
from serving.server_http import ServedModel
from tasks.batch_inference import failure_reasons, planning, predictor_client, shard
from tasks.batch_inference.failure_reasons import FailureReason, FailureReasons
from tasks.batch_inference.inference_request import BatchInference
from tasks.batch_inference.part_results import PartFiles
from tasks.batch_inference.planning import Plan
from tasks.batch_inference.predictor_client import PredictorCommand
from tasks.batch_inference.shard import ShardSpec, ShardStatus

TOO_MANY_FAILED = "TooManyRecordsFailed"  # code of its error

_THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)  # fmt: skip


@dataclass(frozen=True)
class Folders:
    """Folders of a batch inference, which its attempts share.

    Attributes:
        root: The folder that holds the others.
    """

    root: Path

    @property
    def model(self) -> Path:
        """The model's files."""
        return self.root / "model"

    @property
    def staged(self) -> Path:
        """Input files that cannot be read in place."""
        return self.root / "input"

    @property
    def parts(self) -> Path:
        """Results of the parts."""
        return self.root / "parts"

    @property
    def plan(self) -> Path:
        """File with the plan."""
        return self.root / "plan.json"

    @property
    def output(self) -> Path:
        """The output, before it is published."""
        return self.root / "output"

    @property
    def log(self) -> Path:
        """What the model printed, over all attempts."""
        return self.root / "inference.log"

    def status(self, number: int) -> Path:
        """File with what a shard has done."""
        return self.root / f"shard-{number}.status.json"

    def spec(self, number: int) -> Path:
        """File that says what a shard does."""
        return self.root / f"shard-{number}.json"


def shards(
    request: BatchInference,
    model: ResolvedVersion,
    plan: Plan,
    place: Path,
    python: str,
    folders: Folders,
    gpus: Sequence[str],
    mark: Mapping[str, str],
    server: ServedModel | None = None,
) -> list[ProcessSpec]:
    """The processes that predict a plan.

    Args:
        request: The request.
        model: The model.
        plan: What is predicted.
        place: The input: a folder, or a file.
        python: The interpreter of the model.
        folders: The run's folders; each shard's specification is written there.
        gpus: Names of the machine's GPUs that the run holds.
        mark: Variables by which processes are recognized as the run's.
        server: The server that is asked; None if the model is loaded.
    """
    folders.parts.mkdir(exist_ok=True)
    shared = planning.share(plan.pieces(place), request.pods)
    divided = divide(gpus, len(shared))
    cores = max(1, (os.cpu_count() or 1) // len(shared))
    secret = json.dumps(predictor_secrets(server, model))
    processes = []
    for number, pieces in enumerate(shared):
        environment = predictor_environment(cores)
        environment |= {"CUDA_VISIBLE_DEVICES": ",".join(divided[number]), **mark}
        spec = ShardSpec(
            pieces=pieces,
            folder=folders.parts,
            status=folders.status(number),
            input_format=request.input_format,
            predictor=server
            or PredictorCommand(
                predictor_client.command_line(python, folders.model),
                environment,
                parameters=model.parameters,
            ),
            batch_size=request.batch_size,
            seconds=request.timeout_seconds,
            most_failed=request.max_failed,
            key=request.key,
            drop_fields=tuple(request.drop_fields),
        )
        shard.write_spec(spec, folders.spec(number))
        folders.status(number).unlink(missing_ok=True)
        processes.append(
            ProcessSpec(
                [sys.executable, "-m", "tasks.batch_inference.shard", str(folders.spec(number))],
                {**user_environment(), **mark, "PYTHONUNBUFFERED": "1", shard.SECRETS: secret},
                name=f"pod {number}" if len(shared) > 1 else "",
            )
        )
    return processes


def served(request: BatchInference, model: ResolvedVersion) -> ServedModel | None:
    """The server that the request names; None if the model is loaded."""
    if not request.server_url:
        return None
    return ServedModel(request.server_url, model.name, request.server_model, request.server_token)


def predictor_secrets(server: ServedModel | None, model: ResolvedVersion) -> dict[str, str]:
    """Values that are in no file: of the model's secret parameters, or a server's ``token``.

    Raises:
        NotFoundError: With the code ``SecretMissing``.
        BadInputError: If a secret is not valid.
        StackError: If Prefect cannot be reached.
    """
    if server is None:
        return model_parameters.secret_values(model.parameters)
    return {"token": secrets.resolve(server.token)} if server.token else {}


def divide(gpus: Sequence[str], pods: int) -> list[Sequence[str]]:
    """GPUs for each pod: equally many, so that some are left where they do not divide.

    Pods that are more than GPUs share them in turn.
    """
    if not gpus:
        return [()] * pods
    each = len(gpus) // pods
    if each:
        return [gpus[at * each : (at + 1) * each] for at in range(pods)]
    return [[gpus[at % len(gpus)]] for at in range(pods)]


def idle_gpus(gpus: int, pods: int) -> int:
    """How many GPUs no pod has."""
    return gpus % pods if gpus >= pods else 0


def predictor_environment(cores: int) -> dict[str, str]:
    """Variables of a predictor, without the platform's; its libraries start ``cores`` threads."""
    return {
        **user_environment(),
        **dict.fromkeys(_THREADS, str(cores)),
        "PYTHONUNBUFFERED": "1",
    }


def statuses(folders: Folders, count: int) -> list[ShardStatus]:
    """What each of ``count`` shards has done; those that have not begun are left out."""
    found = (shard.read_status(folders.status(at)) for at in range(count))
    return [status for status in found if status is not None]


@dataclass(frozen=True)
class ProgressRecorder:
    """Records what a run has done.

    Attributes:
        metric: Records a value of one of its metrics.
        reasons: Records why records failed, the most frequent reason first.
        outputs: Records the names of the model's outputs, once.
    """

    metric: Callable[[str, float], object]
    reasons: Callable[[Sequence[FailureReason]], object]
    outputs: Callable[[Sequence[str]], object]


class Progress:
    """Tells how far the shards are, now and then, and records it."""

    def __init__(
        self,
        statuses: Callable[[], Sequence[ShardStatus]],
        rows: int,
        most_failed: int,
        tell: Callable[[str], object],
        recorder: ProgressRecorder,
    ) -> None:
        """Follow shards.

        Args:
            statuses: Returns what each shard has done.
            rows: Records of all of them.
            most_failed: How many of them may fail.
            tell: Receives a line.
            recorder: Receives the metrics ``records``, ``failed``, ``records_left`` and
                ``records_per_second``, the reasons of failed records, and the model's outputs.
        """
        self._statuses = statuses
        self._rows = rows
        self._most_failed = most_failed
        self._tell = tell
        self._recorder = recorder
        self._reasons: list[FailureReason] = []
        self._has_outputs = False
        self._begun = time.monotonic()

    def too_many_failed(self) -> str:
        """Why the run is to end, if too many records have failed; else ""."""
        return _too_many_failed(self._statuses(), self._most_failed)

    def record_outputs(self) -> None:
        """Record which outputs the model has, once there are results."""
        found = next((one.outputs for one in self._statuses() if one.outputs), None)
        if found and not self._has_outputs:
            self._has_outputs = True
            self._recorder.outputs(found)

    def report(self) -> None:
        """Tell it."""
        self.record_outputs()
        statuses = self._statuses()
        done = sum(one.rows + one.failed for one in statuses)
        failed = sum(one.failed for one in statuses)
        new = done - sum(one.earlier for one in statuses)
        speed = new / max(1e-9, time.monotonic() - self._begun)
        is_over = done >= self._rows or not speed
        left = "" if is_over else f", about {duration((self._rows - done) / speed)} left"
        lost = f", {failed:,} failed" if failed else ""
        self._tell(f"{done:,} of {self._rows:,} records{lost}: {speed:,.0f} records/s{left}")
        for name, value in {
            "records": done, "failed": failed, "records_left": self._rows - done,
            "records_per_second": round(speed),
        }.items():  # fmt: skip
            self._recorder.metric(name, float(value))
        if (reasons := _reasons(statuses)) != self._reasons:
            self._reasons = reasons
            self._recorder.reasons(reasons)


def done(plan: Plan, folders: Folders) -> ShardStatus:
    """What earlier attempts have done, of the parts that are whole."""
    rows = failed = 0
    reasons = FailureReasons()
    for number in range(plan.part_count):
        if (summary := PartFiles(folders.parts, number).read_summary()) is not None:
            rows, failed = rows + summary.rows, failed + summary.failed
            reasons.merge(summary.reasons)
    return ShardStatus(rows, failed, rows + failed, reasons=reasons.found)


def check_failed(statuses: Sequence[ShardStatus], most: int, log: str) -> None:
    """End a batch inference of whose records too many have failed.

    Args:
        statuses: What each shard has done.
        most: How many records may fail.
        log: Where the whole log is.

    Raises:
        RunFailedError: With the code ``TooManyRecordsFailed``.
    """
    if told := _too_many_failed(statuses, most):
        raise too_many_failed(told, log)


def _too_many_failed(statuses: Sequence[ShardStatus], most: int) -> str:
    failed = sum(one.failed for one in statuses)
    return shard.too_many_failed(most, failed, _reasons(statuses)) if failed > most else ""


def _reasons(statuses: Iterable[ShardStatus]) -> list[FailureReason]:
    return failure_reasons.combined(one.reasons for one in statuses)


def duration(seconds: float) -> str:
    """A time for people: ``8 s``, ``3 min 8 s``, ``2 h 3 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def failure(
    ended: ExitStatus, statuses: Sequence[ShardStatus], log: str
) -> RunFailedError | DiskFullError | None:
    """The error of shards that failed; None if they did not.

    Args:
        ended: How they ended.
        statuses: What they said.
        log: Where the whole log is.
    """
    if ended.cause is ExitCause.EXITED and ended.code == 0:
        return None
    if ended.code == shard.DISK_FULL:
        return DiskFullError(
            f"The disk of {Path(log).parent} is full.",
            "Make room, and retry: it goes on behind the parts that are done.",
        )
    told = next((one.failure for one in statuses if one.failure), "")
    where = f"{ended.process}: " if ended.process else ""
    return failed(told or f"{where}the process {_end_of(ended.code)}.", log)


def _end_of(code: int) -> str:
    """How a process without words ended."""
    if code == -signal.SIGKILL:
        return "was killed: the machine may have run out of memory"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def too_many_failed(message: str, log: str) -> RunFailedError:
    """The error of a batch inference of whose records too many have failed.

    Args:
        message: How many, and why.
        log: Where the whole log is.
    """
    return RunFailedError(
        f"The batch inference failed: {message}",
        "If the input or the model is wrong, correct it and start a new batch inference. Or allow "
        "more, and retry, which goes on behind the parts that are done: modelyard runs update RUN "
        f"-p max_failed=N, and modelyard runs retry RUN. The model's output is in {log}.",
        state=BATCH_INFERENCE.failure,
        code=TOO_MANY_FAILED,
    )


def failed(message: str, log: str) -> RunFailedError:
    """The error of a batch inference whose shards fail.

    Args:
        message: Why.
        log: Where the whole log is.
    """
    # The words may be those of a library; lines are what a server has printed.
    end = "" if "\n" in message or message.endswith((".", "!", "?")) else "."
    return RunFailedError(
        f"The batch inference failed: {message}{end}",
        f"The model's output is in {log}. A retry goes on behind the parts that are done.",
        state=BATCH_INFERENCE.failure,
        code="BatchInferenceFailed",
    )
