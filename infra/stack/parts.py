"""Parts of the local stack as data: command, dependencies, readiness."""

from __future__ import annotations

import functools
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from infra import forked
from infra.connection import Endpoints, clean_environment, environment
from infra.door import credential
from infra.forkclient import own_python
from infra.home import Home
from infra.settings import Settings
from infra.stack import postgres

# What is imported once and shared: by Prefect's server, by MLflow's server beside it, and by what
# a flow run or a command needs, which is paid once, by the fork server.
_OF_PREFECT = (
    "infra.stack.served", "prefect.engine", "prefect.flow_engine", "prefect.task_engine",
    "prefect.events.clients", "prefect.utilities.visualization", "prefect.workers.process",
)  # fmt: skip
_OF_MLFLOW = (*_OF_PREFECT, "mlflow")
_OF_RUNS = (
    *_OF_MLFLOW, "flows.submission", "flows.training", "flows.tuning", "flows.pipeline_run",
    "flows.pipeline_cleanup", "flows.batch_inference", "flows.evaluation", "tuning.event_loader",
    "modelyard.commands.run", "modelyard.commands.runs", "modelyard.commands.model",
    "modelyard.commands.deploy", "modelyard.commands.experiment", "modelyard.commands.template",
    "modelyard.commands.schedule", "modelyard.commands.pipeline",
    "modelyard.commands.tensorboard", "modelyard.commands.apply", "modelyard.commands.notify",
    "modelyard.commands.storage", "modelyard.commands.evaluation", "infra.storage.s3",
    "alembic.command",  # each command checks that the schema is up to date
)  # fmt: skip
# Kubeflow's SDK then imports the pipelines' format alone.
PRELOADER_ENV = {"_KFP_RUNTIME": "true"}
# The database is on this machine, and silent only while that sleeps or is busy. Prefect's own
# bounds of a few seconds would then answer with status 500, which its clients do not retry.
_PATIENT_DATABASE = {
    "PREFECT_SERVER_DATABASE_TIMEOUT": "86400",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "86400",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_TIMEOUT": "86400",
}
POOLS = ("gpu", "cpu")
SERVERS = ("prefect", "mlflow", "web")  # each has a port, which stays the same


@dataclass(frozen=True)
class Part:
    """One process of the stack.

    Attributes:
        name: As ``modelyard status`` shows it.
        command: The command line.
        ready: Readiness check, polled until it passes. Blocking.
        env: Variables beside the stack's own.
        needs: Parts that must be ready before it starts for the first time.
        prepare: Done before each start. Blocking.
        once: It ends by itself, and is ready when it has ended with status 0.
        runs: It belongs to what runs flows; a private stack goes without it.
        stop_signal: The signal that ends it in good order.
        grace: Seconds between that signal and SIGKILL.
        alone: No second one may ever run: what is left of it is killed before it starts again.
        sockets: Listening sockets that it inherits, by number.
        preload: The modules that the preloader imports before it forks the part's process, which
            SIGTERM ends; none if that is a program, or a Python that imports little.
    """

    name: str
    command: list[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None
    once: bool = False
    runs: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 5.0
    alone: bool = True
    sockets: tuple[int, ...] = ()
    preload: tuple[str, ...] = ()


def bind(port: int) -> socket.socket:
    """Listen on loopback at ``port``, or at a free port if that is taken."""
    for candidate in (port, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", candidate))
        except OSError:
            listener.close()
            continue
        listener.listen(512)
        return listener
    raise AssertionError("port 0 is always free")


def answers(home: Home, url: str) -> bool:
    """Whether a server of the home's stack responds at an address."""
    request = urllib.request.Request(url)  # noqa: S310 (always http)
    if held := credential.read(home):
        request.add_header("Authorization", held.basic)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _served(server: str, listener: socket.socket, application: str, *options: str) -> list[str]:
    return [
        *own_python("infra.stack.served"),
        server,
        str(listener.fileno()),
        application,
        *options,
    ]


def preloaded(parts: Iterable[Part]) -> list[str]:
    """The modules that the preloader imports for parts, each once, in order."""
    return list(dict.fromkeys(module for part in parts for module in part.preload))


def environment_of_parts(endpoints: Endpoints, home: Home) -> dict[str, str]:
    """Build the environment of every part, and so of every flow run."""
    return {
        **clean_environment(),
        **environment(endpoints, home),
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        "PYTHONUNBUFFERED": "1",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def _database(home: Home, settings: Settings) -> Part:
    return Part(
        "database",
        postgres.command(home, settings),
        functools.partial(postgres.ready, home),
        prepare=functools.partial(postgres.prepare, home, settings),
        stop_signal=signal.SIGINT,
        grace=20.0,
    )


def _prefect(
    home: Home, settings: Settings, endpoints: Endpoints, listener: socket.socket
) -> Part:
    held = credential.read(home) if settings.door else None
    return Part(
        "prefect",
        _served("prefect", listener, "prefect.server.api.server:create_app", "--factory"),
        functools.partial(answers, home, f"{endpoints.prefect_api_url}/ready"),
        env={
            "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url(home, "asyncpg", "prefect"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres.url(home, "asyncpg", "prefect"),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(listener.getsockname()[1]),
            "PREFECT_UI_API_URL": endpoints.prefect_api_url,
            "PREFECT_SERVER_UI_API_URL": endpoints.prefect_api_url,
            "PREFECT__SERVER_FINAL": "1",
            **({credential.PREFECT_SERVER: held.auth_string} if held else {}),
            **_PATIENT_DATABASE,
        },
        needs=("database",),
        sockets=(listener.fileno(),),
        preload=_OF_PREFECT,
    )


def _mlflow(home: Home, endpoints: Endpoints, listener: socket.socket) -> Part:
    # What `mlflow server` sets before it starts uvicorn; without its job runner, which would be
    # seven more processes.
    store = postgres.url(home, "psycopg", "mlflow")
    return Part(
        "mlflow",
        _served("mlflow", listener, "mlflow.server.fastapi_app:app"),
        functools.partial(
            answers,
            home,
            f"{endpoints.mlflow_tracking_uri}/api/2.0/mlflow/experiments/search?max_results=1",
        ),
        env={
            "_MLFLOW_SERVER_FILE_STORE": store,
            "_MLFLOW_SERVER_REGISTRY_STORE": store,
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": home.artifacts.as_uri(),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SGI_NAME": "uvicorn",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        needs=("database",),
        sockets=(listener.fileno(),),
        preload=_OF_MLFLOW,
    )


def _web(home: Home, endpoints: Endpoints, listener: socket.socket) -> Part:
    return Part(
        "web",
        _served("web", listener, "modelyard.pages.application:create", "--factory"),
        functools.partial(answers, home, f"{endpoints.web_url}/ready"),
        env=PRELOADER_ENV,
        needs=("prefect",),
        runs=True,
        sockets=(listener.fileno(),),
        preload=_OF_RUNS,
    )


def build(
    home: Home, settings: Settings, endpoints: Endpoints, listeners: Mapping[str, socket.socket]
) -> list[Part]:
    """Build every part, each after its dependencies.

    Args:
        home: The stack's home.
        settings: The settings.
        endpoints: The addresses of the servers.
        listeners: The socket of each of ``SERVERS``.
    """
    fork = forked.socket_path(home)
    return [
        _database(home, settings),
        _prefect(home, settings, endpoints, listeners["prefect"]),
        _mlflow(home, endpoints, listeners["mlflow"]),
        _web(home, endpoints, listeners["web"]),
        Part(
            "forkserver",
            [*own_python("infra.forkserver"), str(fork), *_OF_RUNS],
            functools.partial(forked.accepts, fork),
            env=PRELOADER_ENV,
            runs=True,
            grace=15.0,
            preload=_OF_RUNS,
        ),
        Part(
            "deploy",
            forked.forkserver_command(home, "modelyard.main", "deploy"),
            lambda: True,
            needs=("prefect", "forkserver"),
            once=True,
            alone=False,
            runs=True,
        ),
        Part(
            "worker",
            forked.forkserver_command(home, "modelyard.worker", *POOLS),
            functools.partial(forked.accepts, home.sockets / "worker.sock"),
            needs=("deploy",),
            runs=True,
            alone=False,  # its runs bear its mark as well, and end by themselves
        ),
        Part(
            "scheduler",
            forked.forkserver_command(home, "modelyard.scheduler"),
            functools.partial(forked.accepts, home.sockets / "scheduler.sock"),
            needs=("deploy",),
            runs=True,
        ),
    ]
