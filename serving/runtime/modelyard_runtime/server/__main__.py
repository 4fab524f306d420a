"""The server's command: ``python -m modelyard_runtime.server --model-dir DIR``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from modelyard_runtime.server import serving, tracing
from modelyard_runtime.server.access_log import AccessLog, AccessLogFormat
from modelyard_runtime.server.admission import Admission
from modelyard_runtime.server.application import Application
from modelyard_runtime.server.batching import BatchLimits
from modelyard_runtime.server.body_memory import BodyMemory
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.http_connection import HEAD_SECONDS, HttpConnection
from modelyard_runtime.server.observation import (
    ObservedApplication,
    RequestObserver,
    RequestSink,
)
from modelyard_runtime.server.request_bodies import BODIES, RequestLimits
from modelyard_runtime.server.scoring_application import ScoringApplication, ScoringSettings
from modelyard_runtime.server.scoring_script import ScoringScript
from modelyard_runtime.server.served_models import ServedModels
from modelyard_runtime.server.server_metrics import ServerMetrics
from modelyard_runtime.server.serving import Draining, Loadable

if TYPE_CHECKING:
    from modelyard_runtime.server.grpc_server import GrpcServer

TOKEN_VARIABLE = "MODELYARD_SERVE_TOKEN"  # noqa: S105 (its name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve models until a signal ends the server."""
    given = _parser().parse_args(arguments)
    has_grpc = given.grpc_port is not None or given.grpc_fd is not None
    if has_grpc and given.entry_script:
        sys.exit(
            "modelyard_runtime.server: --grpc-port is for models: leave out --entry-script, whose "
            "protocol has no gRPC."
        )
    token, limits = _token(given), _request_limits(given)
    metrics = ServerMetrics(given.metrics_dir)
    held = contextlib.ExitStack()
    observer = RequestObserver(_sinks(given, metrics, held))
    grpc_server = None
    application: Draining
    models: Iterable[Loadable]
    if given.entry_script:
        application, models = _scoring(given, token, limits, metrics)
    else:
        models = _served_models(given, metrics)
        application = Application(models, given.prefix, limits, metrics)
        prefixes = [f"/{name}" for name in models.names]
        prefixes += [f"/{unquote(given.prefix).strip('/')}"] if given.prefix else []
        application = _admitting(given, application, token, (), "error", prefixes)
        if has_grpc:
            grpc_server = _grpc_server(given, models, limits, token, observer)
    application = ObservedApplication(application, observer)
    opened = _socket(given.host, given.port, given.fd)
    served = serving.serve(
        application, models, opened, given.drain, given.ready_file,
        accepts_at_once=not given.accept_when_ready, grpc_server=grpc_server,
        connection=functools.partial(
            HttpConnection, head_seconds=given.head_timeout, observer=observer
        ),
    )  # fmt: skip
    with held:
        code = asyncio.run(served)
    sys.exit(code)


def _sinks(
    given: argparse.Namespace, metrics: ServerMetrics, held: contextlib.ExitStack
) -> list[RequestSink]:
    """Who is told of requests; ``held`` writes at the end what is not written yet."""
    sinks: list[RequestSink] = [metrics]
    if given.access_log is not AccessLogFormat.OFF:
        log = AccessLog(sys.stdout, given.access_log)
        held.callback(log.flush)
        sinks.append(log)
    if traces := tracing.from_environment():
        held.callback(traces.close)
        sinks.append(traces)
    return sinks


def _served_models(given: argparse.Namespace, metrics: ServerMetrics) -> ServedModels:
    limits = BatchLimits(given.batch_rows, given.queue, given.timeout)
    parameters = _pairs(given.parameter)
    return ServedModels(
        [
            HostedModel.of_folder(
                name, given.version, Path(folder), parameters, limits,
                metrics.of_model(name, given.version),
            )
            for name, folder in _models(given).items()
        ]
    )  # fmt: skip


def _grpc_server(
    given: argparse.Namespace, models: ServedModels, limits: RequestLimits, token: str,
    observer: RequestObserver,
) -> GrpcServer:  # fmt: skip
    try:
        from modelyard_runtime.server.grpc_server import GrpcServer  # noqa: PLC0415 (an extra)
    except ImportError as error:
        sys.exit(
            f"modelyard_runtime.server: gRPC needs hpack and protobuf ({error}): install "
            "modelyard-runtime[server,grpc]."
        )
    opened = _socket(given.host, given.grpc_port, given.grpc_fd)
    return GrpcServer(models, opened, limits, token, observer)


def _socket(host: str, port: int, descriptor: int | None) -> socket.socket:
    """The socket of a descriptor, or one of its own."""
    if descriptor is not None:
        return socket.socket(fileno=descriptor)
    try:
        return serving.listen(host, port)
    except (OSError, OverflowError) as error:
        sys.exit(f"modelyard_runtime.server: port {port} of {host} cannot be used: {error}.")


def _scoring(
    given: argparse.Namespace, token: str, limits: RequestLimits, metrics: ServerMetrics
) -> tuple[Draining, Iterable[Loadable]]:
    """A scoring script, as Azure ML's server has it."""
    try:
        settings = ScoringSettings.from_environment()
    except ValueError as error:
        sys.exit(f"modelyard_runtime.server: {error}")
    if given.model_dir is not None:
        os.environ["AZUREML_MODEL_DIR"] = str(given.model_dir.resolve())
    observer = metrics.of_model(given.entry_script.name, given.version)
    script = ScoringScript(given.entry_script, settings.seconds, observer)
    application = ScoringApplication(script, settings, limits, metrics)
    return _admitting(given, application, token, settings.origins, "message"), [script]


def _request_limits(given: argparse.Namespace) -> RequestLimits:
    most = given.body_mib * 2**20
    return RequestLimits(most, given.body_timeout, BodyMemory(BODIES * most))


def _token(given: argparse.Namespace) -> str:
    """What requests have to carry; "" if nothing."""
    token = os.environ.pop(TOKEN_VARIABLE, "").strip()
    if given.token_file is not None:
        token = given.token_file.read_text().strip()
        if not token:
            sys.exit(f"modelyard_runtime.server: {given.token_file} is empty.")
    return token


def _admitting(
    given: argparse.Namespace,
    application: Draining,
    token: str,
    origins: Sequence[str],
    key: str,
    prefixes: Sequence[str] = (),
) -> Draining:
    """The application behind its token; without ``--guarded``, whoever reaches it may ask it."""
    if not (token or given.guarded):
        return application
    return Admission(application, token, origins, key, prefixes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelyard_runtime.server", description="Serve a model over HTTP."
    )
    add = parser.add_argument
    add("--model-dir", type=Path, help="The folder of the model's files.")
    add("--name", default="model", help="The model's name.")
    add("--version", default="1", help="The model's version.")
    add("--model", action="append", default=[], metavar="NAME=DIR", help="One more model.")
    add("--parameter", action="append", default=_hidden_parameters(), metavar="NAME=VALUE",
        help="A parameter of the model's.")  # fmt: skip
    add("--host", default="127.0.0.1", help="The address to listen on.")
    add("--port", type=int, default=8080, help="The port; 0 for any that is free.")
    add("--grpc-port", type=int,
        help="A port to serve gRPC on as well; 0 for any that is free.")  # fmt: skip
    add("--fd", type=int, help="A socket to accept from, instead of an address.")
    add("--grpc-fd", type=int, help="A socket for gRPC, instead of an address.")
    add("--entry-script", type=Path,
        help="A scoring script of Azure ML's, instead of models.")  # fmt: skip
    add("--guarded", action="store_true",
        help="Answer only requests under this machine's names, or with the token.")  # fmt: skip
    add("--token-file", type=Path,
        help=f"A file with the token that requests have to carry; else {TOKEN_VARIABLE}, if set.",
        )  # fmt: skip
    add("--ready-file", type=Path,
        help="A file that is made when all is loaded. With it nothing is accepted any more from "
        "the signal on, for who holds the listeners open.")  # fmt: skip
    add("--accept-when-ready", action="store_true",
        help="Accept connections only once all is loaded; they wait in the listener's queue.",
        )  # fmt: skip
    add("--access-log", type=AccessLogFormat, choices=list(AccessLogFormat),
        default=AccessLogFormat.OFF,
        help="Whether standard output gets a line for each request, and in which format.",
        )  # fmt: skip
    add("--metrics-dir", type=Path,
        help="A folder that processes of one server share, so that each shows the metrics of all.",
        )  # fmt: skip
    add("--prefix", default="",
        help="A path below which everything is served as well, as below each model's name.",
        )  # fmt: skip
    add("--batch-rows", type=int, default=BatchLimits.rows,
        help="Most rows that are predicted together.")  # fmt: skip
    add("--queue", type=int, default=BatchLimits.waiting, help="Most requests that wait.")
    add("--timeout", type=float, default=BatchLimits.seconds,
        help="Seconds until a request is answered at the latest.")  # fmt: skip
    add("--body-mib", type=int, default=RequestLimits.body_bytes // 2**20,
        help="Longest body, in MiB.")  # fmt: skip
    add("--body-timeout", type=float, default=RequestLimits.body_seconds,
        help="Seconds within which a body has to arrive.")  # fmt: skip
    add("--head-timeout", type=float, default=HEAD_SECONDS,
        help="Seconds within which the line and headers of a request have to arrive.")  # fmt: skip
    add("--drain", type=float, default=30.0,
        help="Seconds that requests may take to end once the server is to end.")  # fmt: skip
    return parser


def _models(given: argparse.Namespace) -> Mapping[str, str]:
    found = _pairs(given.model)
    if given.model_dir is not None:
        found = {given.name: str(given.model_dir), **found}
    if not found:
        sys.exit("modelyard_runtime.server: give --model-dir DIR.")
    return found


def _hidden_parameters() -> list[str]:
    """Parameters of a variable, because all users of the machine can read command lines."""
    given = json.loads(os.environ.pop("MODELYARD_SERVE_PARAMETERS", "{}"))
    return [f"{name}={value}" for name, value in given.items()]


def _pairs(given: Sequence[str]) -> Mapping[str, str]:
    pairs = [one.partition("=") for one in given]
    if odd := [name for name, equals, _ in pairs if not (name and equals)]:
        sys.exit(f"modelyard_runtime.server: {odd[0]!r} is not NAME=VALUE.")
    return {name: value for name, _, value in pairs}


if __name__ == "__main__":
    main()
