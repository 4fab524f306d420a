"""``modelyard serve``."""

from __future__ import annotations

import contextlib
import json as json_
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from modelyard_runtime.server.access_log import AccessLogFormat
from modelyard_runtime.server.admission import is_loopback

from infra import home as homes
from infra.connection import clean_environment
from infra.errors import BadInputError, NotFoundError
from infra.workloads import environments
from infra.workloads.installer import InstallCancelledError
from modelyard import output
from modelyard.connecting import connected
from modelyard.options import Json
from registry.models import model_parameters, models
from serving import source_watch, worker_pool
from tasks.batch_inference import model_environment

app = typer.Typer(add_completion=False)

_TOKEN = "MODELYARD_SERVE_TOKEN"  # noqa: S105 (the variable's name)
_PARAMETERS = "MODELYARD_SERVE_PARAMETERS"
_SHORTEST_TOKEN = 16
_SCRIPT_PORT, _MODEL_PORT = 5001, 8080

_SERVER = ("-P", "-m", "modelyard_runtime.server", "--guarded", "--drain",
           f"{worker_pool.DRAIN_SECONDS:g}")  # fmt: skip

Found = tuple[list[str], dict[str, str], str, tuple[int, ...]]


@app.command()
def serve(
    entry_script: Annotated[
        Path | None, typer.Option(help="Scoring script of Azure ML, with init() and run(data).")
    ] = None,
    model_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of a model; a scoring script finds it in AZUREML_MODEL_DIR."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Registered model: models:/NAME/VERSION or models:/NAME@ALIAS.")
    ] = "",
    name: Annotated[
        str, typer.Option(help="Name of the model in the protocols; a registered one has its own.")
    ] = "",
    host: Annotated[
        str, typer.Option(help="Address to listen on; one beyond this machine needs a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535,
            help=f"Port; {_SCRIPT_PORT} for a script, {_MODEL_PORT} for a model; 0 for any free.",
        ),
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of a model's gRPC; 0 for any.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that answer requests.")
    ] = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Replace the workers when a Python file changes.")
    ] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the token that requests carry; or set {_TOKEN}."),
    ] = None,
    access_log: Annotated[
        AccessLogFormat, typer.Option(help="Line for each request on standard error.")
    ] = AccessLogFormat.TEXT,
    json: Json = False,
) -> None:  # fmt: skip
    """Serve a model, or a scoring script of Azure ML, in the foreground until Ctrl-C."""
    _check(entry_script, model_dir, model, grpc_port)
    token = _token(token_file, host)
    default = _SCRIPT_PORT if entry_script else _MODEL_PORT
    listeners = _listeners(host, default if port is None else port, grpc_port, workers)
    with contextlib.ExitStack() as held:
        stop = held.enter_context(_stopped_by_signals())
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-serve-")))
        found = _served(entry_script, model_dir, model, name, folder, stop)
        options = ["--access-log", access_log, "--metrics-dir", str(folder / "metrics")]
        spec = _worker(held.enter_context(found), options, token, workers)
        watched = entry_script.resolve().parent if entry_script else model_dir or folder
        watch = source_watch.SourceWatch([watched]) if reload else None
        urls = _urls(host, listeners[0])
        pool = worker_pool.WorkerPool(
            spec, listeners, folder, output.notice, lambda: _announce(urls, as_json=json), watch
        )
        raise typer.Exit(pool.run(stop))


def _listeners(
    host: str, port: int, grpc_port: int | None, workers: int
) -> Sequence[worker_pool.WorkerListeners]:
    """The sockets of each worker."""
    http = worker_pool.listen(host, port, workers)
    if grpc_port is None:
        return [worker_pool.WorkerListeners(one) for one in http]
    grpc = worker_pool.listen(host, grpc_port, workers, "--grpc-port")
    return [worker_pool.WorkerListeners(*one) for one in zip(http, grpc, strict=True)]


def _urls(host: str, listeners: worker_pool.WorkerListeners) -> Mapping[str, str]:
    """The addresses that are announced."""
    urls = {"url": _url(host, listeners.http)}
    if listeners.grpc:
        urls["grpc"] = _url(host, listeners.grpc).removeprefix("http://")
    return urls


def _worker(
    found: Found, options: Sequence[str], token: str, workers: int
) -> worker_pool.WorkerSpec:
    arguments, variables, python, keep = found
    command = [python, *_SERVER, *options, *arguments]
    environment = _environment(variables, token, workers)
    return worker_pool.WorkerSpec(command, environment, Path.cwd(), keep)


def _check(
    entry_script: Path | None, model_dir: Path | None, model: str, grpc_port: int | None
) -> None:
    given = [model_dir is not None, bool(model)]
    if all(given) or not (any(given) or entry_script) or (model and entry_script):
        raise BadInputError(
            "It is not clear what to serve.",
            "Give --entry-script, with or without --model-dir, or one of --model-dir and --model.",
            code="NothingToServe",
        )
    if entry_script and grpc_port is not None:
        raise BadInputError(
            "--grpc-port is for a model: the protocol of a scoring script has no gRPC.",
            "Leave it out, or serve a model with --model or --model-dir.",
            code="GrpcNotServed",
        )
    if entry_script and not entry_script.is_file():
        raise NotFoundError(f"There is no script {entry_script}.", "Give the path of a file.")
    if model_dir and not model_dir.is_dir():
        raise NotFoundError(f"There is no folder {model_dir}.", "Give the path of a folder.")


def _token(file: Path | None, host: str) -> str:
    """The token of the file or the variable; "" without, which only loopback may be."""
    found = os.environ.get(_TOKEN, "").strip()
    if file is not None:
        try:
            found = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NotFoundError(
                f"The token file {file} cannot be read: {error}.", "Give a file with the token."
            ) from error
    if file is None and not found:
        if not is_loopback(host):
            raise BadInputError(
                f"Without a token, {host} would let in whoever reaches this machine.",
                f"Give --token-file or set {_TOKEN}, or listen on 127.0.0.1.",
                code="TokenRequired",
            )
        return ""
    if len(found) < _SHORTEST_TOKEN or not found.isascii() or not found.isprintable():
        raise BadInputError(
            "The token is too short, or has characters that no header can carry.",
            f"Use at least {_SHORTEST_TOKEN} printable ASCII characters, such as: "
            "openssl rand -hex 32 > token",
            code="TokenInvalid",
        )
    return found


def _url(host: str, opened: socket.socket) -> str:
    port = opened.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _served(
    entry_script: Path | None, model_dir: Path | None, model: str, name: str, folder: Path,
    stop: threading.Event,
) -> Iterator[Found]:  # fmt: skip
    """Arguments and variables of the server, and the Python that it runs in."""
    cache = environments.EnvironmentCache(homes.current().overlays)
    if model:
        with _registered(model, name, folder, cache, stop) as found:
            yield found
        return
    folders = [one for one in (entry_script and entry_script.resolve().parent, model_dir) if one]
    arguments = ["--entry-script", str(entry_script)] if entry_script else []
    arguments += ["--model-dir", str(model_dir)] if model_dir else []
    arguments += ["--name", name] if name else []
    has_stock = entry_script is None
    with model_environment.using_folders(
        folders, cache, output.notice, stop.is_set, has_stock=has_stock
    ) as (python, keep):
        yield arguments, {}, python, keep


@contextlib.contextmanager
def _registered(
    uri: str, name: str, folder: Path, cache: environments.EnvironmentCache, stop: threading.Event
) -> Iterator[Found]:  # fmt: skip
    """The same of a registered model. The stack is not needed any more once it is fetched."""
    files = folder / "model"
    with contextlib.ExitStack() as held:
        with connected():
            version = models.resolve(uri)
            secrets = model_parameters.secret_values(version.parameters)
            models.fetch(version, files)
            python, keep = held.enter_context(
                model_environment.using(version, files, cache, output.notice, stop.is_set)
            )
        parameters = {**version.parameters, **secrets}
        variables = {
            **model_parameters.environment(parameters),
            _PARAMETERS: json_.dumps(model_parameters.texts(parameters)),
        }
        arguments = ["--model-dir", str(files), "--name", name or version.name,
                     "--version", str(version.version)]  # fmt: skip
        yield arguments, variables, python, keep


def _environment(variables: Mapping[str, str], token: str, workers: int) -> dict[str, str]:
    """Variables of the workers; several share the processors."""
    found = {**clean_environment(), "PYTHONUNBUFFERED": "1", **variables}
    found.pop(_TOKEN, None)
    if token:
        found[_TOKEN] = token
    if workers > 1:
        found.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    return found


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second one ends the process."""
    stop = threading.Event()
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    def on_signal(*_: object) -> None:
        stop.set()
        restore()

    for one in before:
        signal.signal(one, on_signal)
    try:
        yield stop
    except InstallCancelledError:
        raise typer.Abort from None
    finally:
        restore()


def _announce(urls: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        output.as_json(urls)
        return
    grpc = f", gRPC on {urls['grpc']}" if "grpc" in urls else ""
    output.console.print(f"Serving on {urls['url']}{grpc}  (Ctrl-C ends it)", markup=False)
