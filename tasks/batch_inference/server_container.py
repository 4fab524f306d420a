"""A server that is started for the model as a container of this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra import tcp_ports
from infra.errors import ModelyardError
from infra.workloads.base import NO_GPUS, Backend, ResourceRequest, Workload
from registry.models.models import ResolvedVersion
from serving import model_servers
from serving.model_servers import ServerKind, ServerListen, ServerSource
from serving.server_http import ServedModel
from serving.server_log import ServerLog
from tasks.batch_inference import server_connection
from tasks.batch_inference.predictor_client import PredictorStartError

_NVIDIA = "nvidia.com/gpu"
_PAUSE_SECONDS = 1.0


class ServerContainer:
    """A server in a container, from its start to its end; started again if it ends once ready.

    It is stopped and removed with this process, as every workload is.
    """

    def __init__(self, backend: Backend, workload: Workload, log: Callable[[str], object]) -> None:
        """Start it.

        Args:
            backend: Runs it.
            workload: Its container.
            log: Receives each line that it prints, and how it ended.
        """
        self._backend = backend
        self._workload = workload
        self._log = log
        self._stopped = threading.Event()
        self._is_ready = False
        self._failure: ModelyardError | None = None
        self._end = ""
        self._printed = ServerLog()
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        self._thread.start()

    def await_ready(self, served: ServedModel, is_over: Callable[[], bool]) -> None:
        """Wait until it serves the model.

        Args:
            served: The model there.
            is_over: Whether the run is over, which ends the wait.

        Raises:
            PredictorStartError: If it ends before, is not ready in time, or the run is over.
            ModelyardError: If it cannot be started.
        """
        try:
            with server_connection.connect(served, lambda: self._reason_of_end(is_over)):
                self._is_ready = True
        except PredictorStartError as error:
            if self._failure is not None:
                raise self._failure from error
            raise PredictorStartError(f"{error}\n{self._printed.excerpt()}") from error

    def close(self) -> None:
        """Stop it, and wait until nothing of it is left."""
        self._stopped.set()
        self._thread.join()

    def _reason_of_end(self, is_over: Callable[[], bool]) -> str:
        if self._failure is not None:
            return self._failure.message
        return self._end or ("The run is over." if is_over() else "")

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                ended = self._backend.run(self._workload, self._on_line, self._stopped)
            except ModelyardError as error:
                self._failure = error
                self._log(f"server: {error.message}")
                return
            if self._stopped.is_set():
                return
            reason = ended.reason or "It ended with exit status 0."
            if not self._is_ready:
                self._end = reason
                return
            self._log(f"server: {reason} It is started again.")
            self._stopped.wait(_PAUSE_SECONDS)

    def _on_line(self, line: str) -> None:
        self._printed.add(line)
        self._log(f"server: {line}")


def workload(
    kind: ServerKind,
    image: str,
    source: ServerSource,
    model: ResolvedVersion,
    secrets: Mapping[str, str],
    folder: Path,
    cache: Path,
    gpus: Sequence[str],
    memory: int,
) -> tuple[Workload, int]:
    """The container of a server, and the port of this machine's loopback that reaches it.

    Args:
        kind: The server.
        image: Its image.
        source: What it has of the model.
        model: The model.
        secrets: Values of the model's secret parameters.
        folder: Its own folder.
        cache: Folder of what it downloads from the hub, which outlasts it.
        gpus: Names of the GPUs that it has.
        memory: Bytes of this machine's memory.
    """
    for one in (folder, cache):
        one.mkdir(parents=True, exist_ok=True)
    # All addresses of the container, of which the machine's loopback alone is connected to it.
    (port,) = tcp_ports.free_ports(1)
    listen = ServerListen("0.0.0.0", port, len(gpus))  # noqa: S104
    program, *arguments = model_servers.command(kind, source, model.parameters, listen)
    made = Workload(
        name="server",
        image=image,
        command=(program,),
        arguments=tuple(arguments),
        folder=folder,
        environment={
            **model_servers.environment(model.parameters, secrets, folder, cache),
            **({} if gpus else NO_GPUS),
        },
        inputs=(Path(source.source),) if Path(source.source).is_absolute() else (),
        resources=ResourceRequest(
            accelerator=_NVIDIA, accelerators=len(gpus), devices=tuple(gpus)
        ),
        kubernetes=_settings(model_servers.shared_memory(memory)),
        folders={str(cache): str(cache)},
        ports=(port,),
    )  # fmt: skip
    return made, port


def _settings(shared_memory: int) -> dict[str, Any]:
    """Its user is the present one, so that what it writes can be removed with the run."""
    shared = {"medium": "Memory", "sizeLimit": str(shared_memory)}
    return {
        "securityContext": {"runAsUser": os.getuid(), "runAsGroup": os.getgid()},
        "volumes": [{"name": "shm", "emptyDir": shared}],
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108
    }
