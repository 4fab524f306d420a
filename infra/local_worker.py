"""Prefect's process worker, with its runner's storage in the home."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable
from typing import Any, Self

from prefect.runner import Runner
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from infra import home as homes

# Prefixes of variables that choose what is executed, or where credentials are sent.
_RESERVED = ("PATH=", "LD_", "DYLD_", "PYTHON", "MODELYARD_", "PREFECT_", "MLFLOW_")


class _HomeRunner(Runner):
    """A runner whose storage is in the home.

    Prefect's is in one folder of the shared temporary directory, which belongs to the first user
    of a machine who starts a worker and is closed to all others.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._tmp_dir = homes.current().runner / self._tmp_dir.name


class LocalJobConfiguration(ProcessJobConfiguration):
    """How one run is started. Its own variables name neither programs nor servers."""

    def prepare_for_flow_run(self, *given: Any, **named: Any) -> None:
        """Drop reserved variables, then complete it as Prefect does."""
        self.env = {
            name: value for name, value in self.env.items() if not f"{name}=".startswith(_RESERVED)
        }
        super().prepare_for_flow_run(*given, **named)


class LocalWorker(ProcessWorker, abc.ABC):  # as an "abstract" class it is not registered as a type
    """The worker of a local pool.

    Attributes:
        started: Set when it polls its pool.
    """

    job_configuration = LocalJobConfiguration

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.started = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Start the runner, then the worker, as ``ProcessWorker`` does."""
        self._runner = await _HomeRunner(pause_on_shutdown=False, limit=None).__aenter__()
        try:
            await super(ProcessWorker, self).__aenter__()
        except BaseException as error:
            await self._runner.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def start(
        self,
        run_once: bool = False,
        with_healthcheck: bool = False,
        printer: Callable[..., None] = print,
    ) -> None:
        """Poll until cancelled; ``started`` is set with the worker's first line."""

        def on_line(line: str) -> None:
            self.started.set()
            printer(line)

        await super().start(run_once, with_healthcheck, on_line)
