"""A shard as a pod of a cluster: ``python -P -m tasks.batch_inference.pod SPEC``.

It fetches the model, makes the model's environment or starts a server beside it
(:mod:`tasks.batch_inference.pod_server`), and predicts its parts one after another: the next one
is fetched, and the last one is sent on, while one is predicted. So its disk has a few
parts, however large the input is. Parts whose results are staged are left out.

It has the platform's credentials; the predictor, which is the model's own code, gets none of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from infra import gpus, settings, storage, undumpable
from infra.errors import BadInputError, ModelyardError, NotFoundError
from infra.workloads.environments import EnvironmentCache
from registry.models import models
from registry.models.models import ResolvedVersion
from registry.runs import run_monitor
from serving.server_http import ServedModel
from tasks.batch_inference import (
    model_environment,
    pod_server,
    predicting,
    predictor_client,
    shard,
)
from tasks.batch_inference.part_input import FileOutline, PartInput
from tasks.batch_inference.part_results import PartFiles
from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.pod_server import PodServer
from tasks.batch_inference.predictor_client import (
    PredictorClient,
    PredictorCommand,
    PredictorStartError,
)
from tasks.batch_inference.server_client import ServerClient
from tasks.batch_inference.shard import (
    Shard,
    ShardFailedError,
    ShardSpec,
    TooManyFailedError,
    prefetched,
)
from tasks.batch_inference.staged_parts import StagedParts

# Exit status of a shard that fails by its own words, which are its last line: another try would
# fail as well.
HOPELESS = 3
# Likewise, where another try may not.
FAILED = 1
# Likewise, where too many records have failed.
TOO_MANY_FAILED = 4
# Likewise, where the server that was started for the model is the reason.
SERVER_FAILED = 5
_ENDED = 128 + int(signal.SIGTERM)


@dataclass(frozen=True)
class PodSpec:
    """What a pod does.

    Attributes:
        model: URI of the model's version.
        input_uri: The input.
        input_format: Its format.
        files: Its files by their names.
        pieces: The pieces of this pod's parts; each one's path is its file's name.
        area: URI of the run's staging area.
        batch_size: Most records of one request.
        seconds: How long one request may take.
        most_failed: So many records of the pod may fail.
        cores: How many threads the model's libraries start.
        has_gpus: Whether the pod has GPUs.
        key: The field that is a record's key; "" if none.
        server: The server that is asked; None if the model is loaded.
        mlflow_run_id: The MLflow run that gets the pod's usage; "" for none.
        name: The pod's name there, such as ``pod-0``.
        drop_fields: Fields that the model does not get.
        started: The server that is started beside the shard for the model; None if there is none.
    """

    model: str
    input_uri: str
    input_format: str
    files: Mapping[str, FileOutline]
    pieces: list[PlannedPiece]
    area: str
    batch_size: int
    seconds: float
    most_failed: int
    cores: int
    has_gpus: bool = False
    key: str = ""
    server: ServedModel | None = None
    mlflow_run_id: str = ""
    name: str = ""
    drop_fields: tuple[str, ...] = ()
    started: PodServer | None = None

    def write(self, path: Path) -> None:
        """Write it to a file, for a pod."""
        path.write_bytes(TypeAdapter(PodSpec).dump_json(self))

    @classmethod
    def read(cls, path: Path) -> PodSpec:
        """The specification in a file."""
        return TypeAdapter(PodSpec).validate_json(path.read_bytes())


def run(spec: PodSpec, folder: Path) -> None:
    """Predict the parts of a pod that are not done.

    Args:
        spec: What the pod does.
        folder: An empty folder for its files.

    Raises:
        ShardFailedError: If too many records fail, or the model hangs.
        PredictorStartError: If the model does not load.
        ModelyardError: If something cannot be fetched, installed or sent.
        OSError: If a file cannot be read or written.
    """
    model = models.resolve(spec.model)
    for name in ("parts", "input"):
        (folder / name).mkdir()
    with _monitored(spec), _predictor(spec, model, folder) as predictor:
        shard_spec = _shard_spec(spec, predictor, folder)
        asked = predictor if isinstance(predictor, ServedModel) else None
        secrets = predicting.predictor_secrets(asked, model)
        with shard.client_of(predictor, secrets) as client:
            _predict(spec, shard_spec, client, folder)


def _monitored(spec: PodSpec) -> contextlib.AbstractContextManager[None]:
    if not spec.mlflow_run_id:
        return contextlib.nullcontext()
    names = gpus.devices(settings.load()) if spec.has_gpus else ()
    return run_monitor.pod_monitored(spec.mlflow_run_id, spec.name, names, _say)


@contextlib.contextmanager
def _predictor(
    spec: PodSpec, model: ResolvedVersion, folder: Path
) -> Iterator[PredictorCommand | ServedModel]:
    """The server that is asked, or the command of a predictor with the model's environment."""
    if spec.server is not None:
        yield spec.server
        return
    if spec.started is not None:
        secrets = predicting.predictor_secrets(None, model)
        yield pod_server.start(spec.started, model, secrets, _say)
        return
    models.fetch(model, folder / "model")
    environment = predicting.predictor_environment(spec.cores)
    if not spec.has_gpus:  # a pod with GPUs sees its own alone
        environment["CUDA_VISIBLE_DEVICES"] = ""
    environments = EnvironmentCache(folder / "environments")
    with model_environment.using(model, folder / "model", environments, _say, lambda: False) as (
        python,
        _,
    ):
        command = predictor_client.command_line(python, folder / "model")
        yield PredictorCommand(command, environment, parameters=model.parameters)


def _shard_spec(
    spec: PodSpec, predictor: PredictorCommand | ServedModel, folder: Path
) -> ShardSpec:
    return ShardSpec(
        pieces=spec.pieces,
        folder=folder / "parts",
        status=folder / "status.json",
        input_format=spec.input_format,
        predictor=predictor,
        batch_size=spec.batch_size,
        seconds=spec.seconds,
        most_failed=spec.most_failed,
        key=spec.key,
        drop_fields=spec.drop_fields,
    )


def _predict(
    spec: PodSpec, work: ShardSpec, client: PredictorClient | ServerClient, folder: Path
) -> None:
    staged = StagedParts(spec.area)
    done = staged.done()
    source = PartInput(spec.input_uri, spec.input_format, spec.files, folder / "input")

    def brought() -> Iterator[PlannedPiece]:
        for piece in spec.pieces:
            files = PartFiles(work.folder, piece.number)
            if piece.number not in done:
                yield source.bring(piece)
                continue
            if not files.summary.exists():
                staged.read_summary(done[piece.number], files)
            yield piece

    with _PartSender(staged) as sender, prefetched(brought(), 1) as ahead:

        def on_predicted(pieces: Sequence[PlannedPiece], files: PartFiles) -> None:
            for piece in pieces:
                source.drop(piece)
            sender.send(files)

        Shard(work, client).run(ahead, on_predicted)


class _PartSender:
    """Sends one part on while the next one is predicted."""

    def __init__(self, staged: StagedParts) -> None:
        self._staged = staged
        self._attempt = uuid.uuid4().hex[:12]
        self._sending: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "sender")

    def __enter__(self) -> _PartSender:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._thread:  # what was begun is sent in any case
            if kind is None:
                self._wait()

    def send(self, files: PartFiles) -> None:
        """Begin to send a part, once the one before it is sent; raises what that did."""
        self._wait()
        self._sending = self._thread.submit(self._staged.publish, files, self._attempt)

    def _wait(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.result()


def _say(line: str) -> None:
    print(line, flush=True)


def main(path: Path) -> int:
    """Run the pod that a file specifies; the exit status."""
    folder = Path("work").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    spec = PodSpec.read(path)
    try:
        run(spec, folder)
    except TooManyFailedError as error:
        _say(str(error))
        return TOO_MANY_FAILED
    except PredictorStartError as error:
        _say(str(error))
        return SERVER_FAILED if spec.started else HOPELESS
    except ShardFailedError as error:
        _say(str(error))
        return HOPELESS
    except (BadInputError, NotFoundError) as error:
        _say(f"{error.code}: {error}")
        return HOPELESS
    except (ModelyardError, OSError) as error:
        full = "The pod's disk is full; see data_storage_gib: "
        _say(f"{full if storage.is_disk_full(error) else ''}{error}")
        return FAILED
    shutil.rmtree(folder)  # what the workload leaves in its folder goes back to the run
    return 0


if __name__ == "__main__":
    # The first process of a container is deaf to signals that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_ENDED))
    undumpable.protect()
    sys.exit(main(Path(sys.argv[1])))
