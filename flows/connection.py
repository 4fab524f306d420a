"""The connection of a process to Prefect, MLflow and the catalogue of a stack."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import httpx
import prefect.context
from prefect.context import (
    AsyncClientContext,
    ContextModel,
    FlowRunContext,
    SettingsContext,
    SyncClientContext,
    TaskRunContext,
)
from sqlalchemy.exc import OperationalError

from infra import connection, http_status, settings
from infra import home as homes
from infra.connection import Endpoints
from infra.errors import StackError
from infra.mlflow import MlflowException
from infra.stack import client as stack
from registry import catalogue

# The part of a stack that does not answer, and the variable that names its address, by the
# exception that its client raises.
_UNREACHABLE: dict[type[Exception], tuple[str, str]] = {
    httpx.TransportError: ("Prefect", "PREFECT_API_URL"),
    OperationalError: ("The catalogue's database", "MODELYARD_DATABASE_URL"),
}
_UNAUTHORIZED = (401, 403)
# Prefect's contexts of the run that a thread executes.
_OF_RUN = (FlowRunContext, TaskRunContext, SyncClientContext, AsyncClientContext)
_HIDDEN: tuple[type[ContextModel], ...] = (*_OF_RUN, SettingsContext)

StackKind = Literal["environment", "running", "temporary"]


@dataclass
class _SharedConnection:
    """The connection that the threads of this process share while one of them needs it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    from_environment: bool = False
    endpoints: Endpoints | None = None
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def open(self) -> Endpoints:
        with self.lock:
            if self.endpoints is None:
                self.from_environment = connection.from_environment() is not None
                with contextlib.ExitStack() as opening:
                    self.endpoints = opening.enter_context(_environment_set())
                    self.closing = opening.pop_all()
            self.users += 1
            return self.endpoints

    def close(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.endpoints = None
                self.closing.close()

    def is_from_environment(self) -> bool:
        """Whether the environment names the endpoints; not where an open connection set it."""
        with self.lock:
            if self.users:
                return self.from_environment
            return connection.from_environment() is not None


_shared = _SharedConnection()


def stack_kind() -> StackKind:
    """The stack that a connection of this process reaches.

    Returns:
        ``environment`` where the environment names it, ``running`` where one is up in the home,
        else ``temporary``: it is started for the connection.
    """
    if _shared.is_from_environment():
        return "environment"
    return "running" if (stack.status(homes.current()) or {}).get("lasting") else "temporary"


@contextlib.contextmanager
def kept_open() -> Iterator[Endpoints]:
    """Keep the connection of this process open, for the connections within.

    Raises:
        StackError: If the temporary stack cannot be started.
    """
    endpoints = _shared.open()
    try:
        yield endpoints
    finally:
        _shared.close()


@contextlib.contextmanager
def connected(*, to_workers: bool = False) -> Iterator[Endpoints]:
    """Connect this process to Prefect, MLflow and the catalogue.

    Their addresses are those of the environment, else of the stack that is up, else of a temporary
    stack that is started for the call and stops with the last such context. Within, the thread
    executes no run of another Prefect server.

    Args:
        to_workers: Whether workers are needed. A temporary stack has none.

    Raises:
        StackError: If the temporary stack cannot be started, no stack with workers is up, or a
            part of it does not answer, or answers with an error of its own.
    """
    if to_workers and stack_kind() == "temporary":
        raise stack.not_up(to_workers=True)
    with unreachable_reported(), kept_open() as endpoints, _foreign_run_hidden(endpoints):
        try:
            yield endpoints
        except (httpx.HTTPStatusError, MlflowException) as error:
            if found := _unauthorized(error) or _failed(error):
                raise found from error
            raise


@contextlib.contextmanager
def _foreign_run_hidden(endpoints: Endpoints) -> Iterator[None]:
    """Hide a run of another Prefect server that this thread executes, such as a user's flow.

    Otherwise its client would send Modelyard's requests, and a flow that it calls would be its
    subflow, which only the server that has the parent can have.
    """
    address = endpoints.prefect_api_url.rstrip("/")
    running = [found for context in _OF_RUN if (found := context.get())]
    with contextlib.ExitStack() as hidden:
        if any(str(one.client.api_url).rstrip("/") != address for one in running):
            for context in _HIDDEN:
                hidden.callback(context.__var__.reset, context.__var__.set(None))
        yield


@contextlib.contextmanager
def unreachable_reported() -> Iterator[None]:
    """Raise a StackError with the code ``StackSilent`` for a part that does not answer."""
    from_environment = _shared.is_from_environment()
    try:
        yield
    except tuple(_UNREACHABLE) as error:
        raise _unreachable(error, from_environment=from_environment) from error


def _unreachable(error: Exception, *, from_environment: bool) -> StackError:
    part, variable = next(found for kind, found in _UNREACHABLE.items() if isinstance(error, kind))
    hint = "See modelyard status; the logs are in the home's folder logs."
    if from_environment:
        hint = f"Check that this machine can reach the address in {variable}."
    return StackError(
        f"{part} does not answer ({type(error).__name__}).", hint, code="StackSilent"
    )


def _unauthorized(error: httpx.HTTPStatusError | MlflowException) -> StackError | None:
    """The error of a server that refuses the credential; None for another answer."""
    if isinstance(error, MlflowException):
        status, part = error.status_code, "MLflow"
        hint = "Check MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    else:
        status, part = error.response.status_code, "Prefect"
        hint = "Check PREFECT_API_AUTH_STRING: USER:PASSWORD, as its server was given it."
    if status not in _UNAUTHORIZED:
        return None
    return StackError(
        f"{part} refuses the credential (status {status}).", hint, code="StackRefused"
    )


def _failed(error: httpx.HTTPStatusError | MlflowException) -> StackError | None:
    """The error of Prefect's server that failed; None for another answer."""
    if isinstance(error, MlflowException) or error.response.status_code < 500:
        return None
    asked = error.request
    return http_status.failed("Prefect", asked.method, asked.url.path, error.response.status_code)


@contextlib.contextmanager
def _environment_set() -> Iterator[Endpoints]:
    """Set the variables that the clients read, and restore them afterwards."""
    endpoints = connection.from_environment()
    if endpoints:
        yield endpoints
        return
    home = homes.current()
    with stack.temporary_stack(home, settings.load()) as endpoints:
        variables = connection.environment(endpoints, home)
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        settings_before = prefect.context.GLOBAL_SETTINGS_CONTEXT
        prefect.context.refresh_global_settings_context()
        try:
            catalogue.migrate()
            yield endpoints
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            # Reading them again would take as long as a small request.
            prefect.context.GLOBAL_SETTINGS_CONTEXT = settings_before
