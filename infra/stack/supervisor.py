"""Supervisor: starts the parts in parallel, restarts dead ones, ends all with itself.

One supervisor runs per home, held by a file lock. Each part is on a leash (``infra/leash.py``),
so that even a killed supervisor leaves no process behind. Clients send it operations through a
Unix socket, one JSON object a line:

``{"op": "status"}``  the status, at once
``{"op": "wait"}``    the same, once everything that should run is ready
``{"op": "hold"}``    waits for the servers; a private stack lives as long as it has such callers
``{"op": "keep"}``    a private stack becomes a lasting one, with workers; then as wait
``{"op": "attach"}``  the same, and it ends when the caller closes the connection
``{"op": "down"}``    ends the stack; it has ended when the home's lock is free

A stack that is ending closes the connection without an answer.

A part that dies again and again before it has run for a while is crash-looping. That ends a stack
that is still starting; a started one keeps restarting the part, and clients that wait for it get
the reason as ``error``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from infra import home as homes
from infra import settings as settings_module
from infra.connection import Endpoints
from infra.door import credential
from infra.errors import ConflictError, StackError
from infra.home import Home
from infra.leash_client import leash_command
from infra.settings import Settings
from infra.stack import orphans, postgres
from infra.stack import parts as parts_module
from infra.stack.parts import Part
from infra.stack.preloaded import Forked, Preloader

_POLL_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 10.0
_STEADY_SECONDS = 30.0
_STARTS_BEFORE_GIVING_UP = 3
_LARGEST_LOG_BYTES = 20 * 1024 * 1024
_IDLE_SECONDS = 2.0


@dataclass
class SupervisedPart:
    """A part and its status."""

    part: Part
    state: str = "waiting"  # waiting, starting, ready, done, restarting, failing, stopped
    process: asyncio.subprocess.Process | Forked | None = None
    started: float = 0.0
    restarts: int = 0
    failures: int = 0
    error: StackError | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def is_steady(self) -> bool:
        """Whether it has been ready for long enough to count as stable."""
        return self.ready.is_set() and time.monotonic() - self.started > _STEADY_SECONDS

    def is_crash_looping(self) -> bool:
        """Whether its last starts all ended early."""
        return self.failures >= _STARTS_BEFORE_GIVING_UP and not self.is_steady()

    def is_settled(self) -> bool:
        """Whether it is ready, or crash-looping and down at present."""
        return self.ready.is_set() != self.is_crash_looping()

    def as_dict(self) -> dict[str, Any]:
        """Return the part as ``status`` shows it."""
        pid = self.process.pid if self.process and self.process.returncode is None else None
        error = self.error if self.is_crash_looping() else None
        return {
            "name": self.part.name, "state": self.state, "pid": pid, "restarts": self.restarts,
            "error": error.as_dict() if error else None,
        }  # fmt: skip


class Supervisor:
    """Supervisor of the parts of one home, until it is stopped."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        endpoints: Endpoints,
        parts: list[Part],
        lasting: bool,
    ) -> None:
        self._home = home
        self._settings = settings
        self._endpoints = endpoints
        self._env = parts_module.environment_of_parts(endpoints, home)
        self._watched = {part.name: SupervisedPart(part) for part in parts}
        self._lasting = lasting
        self._holds = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._came_up = False
        self._failure: StackError | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._preloader: Preloader | None = None

    # Control socket

    def status(self, error: StackError | None = None) -> dict[str, Any]:
        """Return the status of the stack and its parts.

        Args:
            error: Why a part that the caller waited for is not ready, if so.
        """
        shown = self._needed()
        error = self._failure or error
        return {
            "running": True,
            "ready": all(part.ready.is_set() and not part.is_crash_looping() for part in shown),
            "lasting": self._lasting,
            "pid": os.getpid(),
            "links": self._links(),
            "door": self._settings.door,
            "parts": [watched.as_dict() for watched in shown],
            "error": error.as_dict() if error else None,
            "endpoints": self._endpoints.as_dict(),
        }

    def _links(self) -> dict[str, str]:
        links = {
            "prefect": self._endpoints.prefect_ui_url,
            "mlflow": self._endpoints.mlflow_tracking_uri,
        }
        if self._lasting:  # a private stack goes without
            links["web"] = self._endpoints.web_url
        return links

    def stop(self) -> None:
        """Request the end of all parts."""
        self._stopping.set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client of the control socket."""
        held = attached = False
        try:
            while line := await reader.readline():
                operation = _operation(line)
                if operation == "down":
                    self.stop()
                if self._stopping.is_set():
                    return  # and the caller waits until the lock is free
                if operation == "hold" and not held:
                    held = True
                    self._hold(1)
                elif operation in {"keep", "attach"}:
                    attached = attached or operation == "attach"
                    self._lasting = True
                    self._start_wanted()
                error = None
                if operation in {"hold", "keep", "attach", "wait"}:
                    error = await self._until_ready(servers_only=operation == "hold")
                    error = error or self._failure
                    if self._stopping.is_set() and error is None:
                        return
                writer.write(json.dumps(self.status(error)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # a caller that is gone, or that does not speak our language
        finally:
            if held:
                self._hold(-1)
            if attached:
                self.stop()
            writer.close()

    def _hold(self, change: int) -> None:
        self._holds += change
        if self._idle:
            self._idle.cancel()
            self._idle = None
        if self._holds == 0 and not self._lasting:
            self._idle = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._holds == 0 and not self._lasting:
            self.stop()

    def _needed(self, *, servers_only: bool = False) -> list[SupervisedPart]:
        return [
            watched
            for watched in self._watched.values()
            if self._wanted(watched.part) and not (servers_only and watched.part.runs)
        ]

    async def _until_ready(self, *, servers_only: bool = False) -> StackError | None:
        """Wait until the needed parts are ready; return the error of a crash-looping one."""
        while not (self._stopping.is_set() or self._failure):
            needed = self._needed(servers_only=servers_only)
            looping = [part for part in needed if part.is_crash_looping()]
            if any(part.is_settled() for part in looping):
                return next(part.error for part in looping if part.is_settled())
            if all(part.is_settled() for part in needed):
                break
            await asyncio.sleep(_POLL_SECONDS / 2)
        return None

    # Supervision

    def _wanted(self, part: Part) -> bool:
        return self._lasting or not part.runs

    def _start_wanted(self) -> None:
        for name, watched in self._watched.items():
            if name not in self._tasks and self._wanted(watched.part):
                self._tasks[name] = asyncio.create_task(self._keep_alive(watched), name=name)

    async def run(self) -> None:
        """Start the parts and supervise them until :meth:`stop`.

        Raises:
            StackError: If a part cannot be started at first; all others are ended before.
        """
        self._preload()
        self._start_wanted()
        try:
            await asyncio.wait_for(
                self._until_ready(), timeout=self._settings.start_timeout_seconds
            )
        except TimeoutError:
            late = [name for name, watched in self._watched.items()
                    if self._wanted(watched.part) and not watched.ready.is_set()]  # fmt: skip
            self._fail(
                StackError(
                    f"Not ready after {self._settings.start_timeout_seconds:.0f} s: "
                    f"{', '.join(late)}.",
                    f"Their logs are in {self._home.logs}.",
                )
            )
        if not self._failure:
            self._came_up = True
            if not self._lasting and self._holds == 0:
                self._hold(0)
            await self._stopping.wait()
        await self._end_all()
        if self._failure:
            raise self._failure

    async def _keep_alive(self, watched: SupervisedPart) -> None:
        part = watched.part
        for needed in part.needs:
            await self._watched[needed].ready.wait()
        while not self._stopping.is_set():
            watched.started = time.monotonic()
            if watched.state != "failing":
                watched.state = "restarting" if watched.failures else "starting"
            try:
                if part.prepare:
                    await asyncio.to_thread(part.prepare)
                if self._stopping.is_set():
                    return
                process = watched.process = await self._spawn(part)
            except StackError as error:
                self._fail(error)
                return
            except OSError as error:
                reason = StackError(
                    f"The part {part.name} cannot be started: {error}.",
                    f"Fix what the reason names, and start it again; {self._home.logs} has the "
                    "logs of all parts.",
                )
                self._fail(reason)
                return
            if part.once:
                if await process.wait() == 0:
                    watched.state, watched.failures = "done", 0
                    watched.ready.set()
                    return
            else:
                await self._until_ready_or_dead(watched, process)
                await process.wait()
            if self._stopping.is_set():
                return
            if part.alone:
                await asyncio.to_thread(orphans.end_part, self._home, part.name)
            self._count_failure(watched)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _backoff_seconds(watched.failures))

    def _count_failure(self, watched: SupervisedPart) -> None:
        watched.failures = 0 if watched.is_steady() else watched.failures + 1
        watched.restarts += 1
        watched.state = "restarting"
        watched.ready.clear()
        if watched.is_crash_looping():
            watched.state = "failing"
            watched.error = self._crash_report(watched.part)
            if not self._came_up:
                self._fail(watched.error)

    async def _until_ready_or_dead(
        self, watched: SupervisedPart, process: asyncio.subprocess.Process | Forked
    ) -> None:
        while process.returncode is None:
            if await asyncio.to_thread(watched.part.ready) and process.returncode is None:
                watched.state = "ready"
                watched.ready.set()
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _preload(self) -> None:
        """Start the preloader, of which servers are forks where the kernel ends these with it."""
        parts = [watched.part for watched in self._watched.values() if self._wanted(watched.part)]
        modules = parts_module.preloaded(parts)
        if modules and sys.platform == "linux":
            env = {**self._env, **parts_module.PRELOADER_ENV}
            env |= orphans.mark(self._home, "preloader")
            with self._log("preloader") as log:
                self._preloader = Preloader(modules, env, log)

    async def _spawn(self, part: Part) -> asyncio.subprocess.Process | Forked:
        env = {**self._env, **part.env, **orphans.mark(self._home, part.name)}
        with self._log(part.name) as log:
            if part.preload and self._preloader:
                forked = await self._preloader.start(
                    part.command, env=env, cwd=self._home.root, grace=part.grace,
                    log=log.fileno(), keep=part.sockets, preload=part.preload,
                )  # fmt: skip
                if forked:
                    return forked
            return await asyncio.create_subprocess_exec(
                *leash_command(
                    part.command, grace=part.grace, stop_signal=part.stop_signal, main_first=True
                ),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=env,
                cwd=self._home.root,
                pass_fds=part.sockets,
                start_new_session=True,
            )

    def _log(self, name: str) -> IO[bytes]:
        path = self._home.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > _LARGEST_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def _crash_report(self, part: Part) -> StackError:
        path = self._home.logs / f"{part.name}.log"
        tail = "\n".join(path.read_text(errors="replace").splitlines()[-15:])
        return StackError(
            f"The part {part.name} exits soon after each start. The end of its log:\n{tail}",
            f"The whole log is {path}.",
        )

    def _fail(self, error: StackError) -> None:
        self._failure = self._failure or error
        self._stopping.set()

    async def _end_all(self) -> None:
        """End the parts, dependents first."""
        self._stopping.set()
        for watched in reversed(self._watched.values()):
            process = watched.process
            if process and process.returncode is None:
                assert process.stdin is not None
                process.stdin.close()
                await process.wait()
            watched.state = "stopped"
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._preloader:
            await self._preloader.close()


def _backoff_seconds(failures: int) -> float:
    return min(0.1 * 3 ** min(failures - 1, 9), _LONGEST_BACKOFF_SECONDS) if failures else 0.0


def _operation(line: bytes) -> str | None:
    request = json.loads(line)
    return request.get("op") if isinstance(request, dict) else None


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[None]:
    with home.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"A stack is already running in {home.root}.",
                "Use it (modelyard status), end it first (modelyard down), or set MODELYARD_HOME "
                "to another folder.",
                code="AlreadyRunning",
            ) from None
        yield


def _preferred_port(home: Home, settings: Settings, name: str) -> int:
    """Return the configured port, or the last one, so that links and bookmarks stay valid."""
    field = f"{name}_port"
    wanted: int = getattr(settings, field)
    if field in settings.model_fields_set and wanted:
        return wanted
    try:
        return int(json.loads((home.root / "ports.json").read_text())[name])
    except (OSError, ValueError, KeyError):
        return wanted


async def supervise(
    home: Home, settings: Settings, *, lasting: bool,
    started: Callable[[Supervisor], None] = lambda _: None,
) -> None:  # fmt: skip
    """Run the stack of ``home`` until it is stopped.

    Args:
        home: The home; created if missing.
        settings: Ports and limits.
        lasting: Whether it stays and runs deployments, or only serves the callers that hold it.
        started: Called with the supervisor before anything runs.

    Raises:
        ConflictError: If one is running already.
        StackError: If a part cannot be started.
    """
    home.make()
    with _locked(home):
        await asyncio.to_thread(orphans.end, home)
        listeners = {
            name: parts_module.bind(_preferred_port(home, settings, name))
            for name in parts_module.SERVERS
        }
        credential.ensure(home)
        ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
        homes.write_json(home.root / "ports.json", ports)
        endpoints = Endpoints(
            prefect_api_url=f"http://127.0.0.1:{ports['prefect']}/api",
            mlflow_tracking_uri=f"http://127.0.0.1:{ports['mlflow']}",
            database_url=settings.database_url or postgres.url(home, "psycopg", "modelyard"),
            web_url=f"http://127.0.0.1:{ports['web']}",
        )
        parts = parts_module.build(home, settings, endpoints, listeners)
        supervisor = Supervisor(home, settings, endpoints, parts, lasting)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(signum, supervisor.stop)
        control = home.sockets / "control.sock"
        control.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(supervisor.answer, control)
        control.chmod(0o600)
        homes.write_json(home.record, {"pid": os.getpid(), "control": str(control)})
        started(supervisor)
        try:
            await supervisor.run()
        finally:
            home.record.unlink(missing_ok=True)
            await asyncio.to_thread(orphans.end, home)
            server.close()


def main(arguments: list[str]) -> int:
    """Run as a process of its own: ``--lasting`` for ``modelyard up --detach``."""
    home = homes.current()
    try:
        asyncio.run(supervise(home, settings_module.load(), lasting="--lasting" in arguments))
    except ConflictError:
        return 0  # somebody else was faster: one runs, which is what was asked for
    except StackError as error:
        homes.write_json(home.root / "error.json", error.as_dict())
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
