"""A server beside a shard in its pod, started for the model.

It runs in a container of its own, of the server's image, which waits for a script in a folder that
both containers have. The shard fetches the model there, and writes the script: the server's
variables, some of them secret, and its command. So no manifest has a secret.
"""

from __future__ import annotations

import functools
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import tcp_ports
from infra.instance_types import InstanceType
from infra.workloads.base import NO_GPUS, Sidecar
from infra.workloads.kubernetes import stage
from registry.models.models import ResolvedVersion
from serving import model_servers
from serving.model_servers import ServerKind, ServerListen
from serving.server_http import ServedModel
from tasks.batch_inference import server_connection
from tasks.batch_inference.pod_resources import PodResources

NAME = "server"
FOLDER = Path("/modelyard/server")
# What a server's lines in its pod's log begin with.
PREFIX = f"{NAME}: "

_LOOPBACK = "127.0.0.1"
_SCRIPT = "start"
_STARTS = "start.count"  # a line for each time that the server was started
_MODEL = "model"
# The shell is the first process of its container, which heeds only the signals that it names.
_WAIT = """\
trap 'exit 143' TERM
until [ -e "$0" ]; do sleep 0.5; done
echo >> "$0.count"
exec sh "$0"
"""


@dataclass(frozen=True)
class PodServer:
    """A server beside a shard.

    Attributes:
        kind: Its kind.
        image: Its image.
        folder: The folder that both containers have.
        gpus: How many GPUs it has.
        start_seconds: How long it may take to be ready.
    """

    kind: ServerKind
    image: str
    folder: Path
    gpus: int
    start_seconds: float


def sidecar(server: PodServer, shape: InstanceType, share: PodResources) -> Sidecar:
    """The container of a server.

    Args:
        server: The server.
        shape: Shape of the instance.
        share: What it has of that.
    """
    return Sidecar(
        name=NAME,
        image=server.image,
        command=("sh", "-c", _WAIT, str(server.folder / _SCRIPT)),
        folder=server.folder,
        environment={} if share.gpus else NO_GPUS,
        resources=share.requested(shape),
        shared_memory=model_servers.shared_memory(share.memory),
    )  # fmt: skip


def start(
    server: PodServer,
    model: ResolvedVersion,
    secrets: Mapping[str, str],
    log: Callable[[str], object],
) -> ServedModel:
    """Start a server, once it has its model; returns when it is ready.

    Args:
        server: The server.
        model: The model.
        secrets: Values of the model's secret parameters.
        log: Receives a line when it is ready.

    Raises:
        PredictorStartError: If it ends before it is ready, or is not ready in time.
        ModelyardError: If the model cannot be fetched.
    """
    folder = server.folder
    source = model_servers.fetch(server.kind, model, folder / _MODEL)
    if (folder / _MODEL).exists():
        stage.let_read(folder / _MODEL)
    (port,) = tcp_ports.free_ports(1)  # in its pod the server is alone with the shard
    listen = ServerListen(_LOOPBACK, port, server.gpus)
    command = model_servers.command(server.kind, source, model.parameters, listen)
    variables = model_servers.environment(model.parameters, secrets, folder, folder / "hub")
    begun = time.monotonic()
    _write_script(folder / _SCRIPT, command, variables)
    served = ServedModel(
        f"http://{_LOOPBACK}:{port}", model.name, source.name,
        start_seconds=server.start_seconds, is_restarted=True,
    )  # fmt: skip
    with server_connection.connect(served, functools.partial(_reason_of_end, folder)):
        log(f"The server is ready after {time.monotonic() - begun:.0f} seconds.")
    return served


def _write_script(path: Path, command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Write a script all at once, for its owner and its group, which the server's user is in."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    partial.touch(0o640)
    os.chmod(partial, 0o640)  # noqa: PTH101 (whatever the umask is)
    partial.write_text("\n".join([*exports, f"exec {shlex.join(command)}", ""]))
    partial.replace(path)


def _reason_of_end(folder: Path) -> str:
    starts = folder / _STARTS
    if starts.exists() and len(starts.read_text().splitlines()) > 1:
        return "its container was started again."
    return ""
