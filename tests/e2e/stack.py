"""A real stack in a home of its own, driven through the `modelyard` command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from infra import forked
from infra.door import credential, sessions
from infra.home import Home
from modelyard import main

T = TypeVar("T")

_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
MODELYARD = str(Path(sys.executable).with_name("modelyard"))
SLOWEST = 3
ALGORITHMS = Path(__file__).with_name("algorithms")


class CommandError(AssertionError):
    """A command that should have succeeded did not."""


@dataclass
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        assert self.code != 0, self.out
        return self.json["error"]


class Stack:
    """One home; `modelyard` commands in it, and its processes."""

    def __init__(self) -> None:
        # Short: Unix sockets live in it.
        self._place = Path(tempfile.mkdtemp(prefix="my-", dir="/tmp"))
        self.home = self._place / "home"
        self.home.mkdir(mode=0o700)
        self.extra: dict[str, str] = {}
        self._links: dict[str, str] = {}

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
        return {
            **kept,
            "MODELYARD_HOME": str(self.home),
            "TMPDIR": str(self._place),  # GPUs too are free or not for this stack alone
            "MODELYARD_PREFECT_PORT": "0",
            "MODELYARD_MLFLOW_PORT": "0",
            "MODELYARD_WEB_PORT": "0",
            **self.extra,
        }

    def ask(self, *arguments: str, timeout: float = 300, cwd: Path | None = None) -> Answer:
        if arguments[0] in {"up", "down"}:
            self._links = {}
        command, env = self._command(arguments[0])
        done = subprocess.run(
            [*command, *arguments, "--json"],
            env=env, capture_output=True, text=True, timeout=timeout, cwd=cwd or self.home,
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    def _command(self, verb: str) -> tuple[list[str], dict[str, str]]:
        """What the command becomes while the stack is up, without the imports until then."""
        home = Home(self.home)
        if verb in main._FORKED and forked.accepts(forked.socket_path(home)):
            line = forked.forkserver_command(home, "modelyard.main")
            return line, {**self.env, main._FORKED_VARIABLE: "1"}
        return [MODELYARD], self.env

    def link(self, server: str) -> str:
        """The address of a server; it stays while the stack is up."""
        if server not in self._links:
            self._links = self.do("status")["links"]
        return str(self._links[server])

    def open(self, server: str, path: str, body: Any = None, timeout: float = 30) -> Any:
        """A server's JSON answer to a GET, or to a POST of ``body``."""
        request = urllib.request.Request(
            f"{self.link(server)}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with self.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    def prefect(self, path: str, body: Any = None) -> Any:
        """What Prefect's API answers."""
        return self.open("prefect", f"api/{path}", body)

    def mlflow(self, path: str, /, **asked: str) -> Any:
        """What MLflow's API answers."""
        query = f"?{urllib.parse.urlencode(asked)}" if asked else ""
        return self.open("mlflow", f"api/2.0/mlflow/{path}{query}")

    def do(self, *arguments: str, timeout: float = 300) -> Any:
        answer = self.ask(*arguments, timeout=timeout)
        if answer.code != 0:
            raise CommandError(f"{arguments}: {answer.out} {answer.err}")
        return answer.json

    def urlopen(self, asked: str | urllib.request.Request, timeout: float = 60) -> Any:
        """Ask a server of the stack with its owner's credential."""
        request = urllib.request.Request(asked) if isinstance(asked, str) else asked
        request.add_header("Authorization", self.credential.basic)
        return urllib.request.urlopen(request, timeout=timeout)

    @property
    def credential(self) -> credential.Credential:
        held = credential.read(Home(self.home))
        assert held is not None
        return held

    def log_in(self, page: Any) -> None:
        """Log a browser in to every server of the stack."""
        token = sessions.of(Home(self.home), self.credential).issue_token()
        page.goto(f"{self.link('web')}/?{sessions.TOKEN_PARAMETER}={token}")

    def python(self, code: str, **env: str) -> str:
        """Run Python code in a process of its own against the stack; its standard output."""
        return self._run([sys.executable, "-c", code], env)

    def execute(self, code: str) -> str:
        """The same, forked from the fork server, where the interpreter's start is no matter."""
        return self._run(
            [*forked.forkserver_command(Home(self.home), "tests.e2e.snippet"), code], {}
        )

    def _run(self, command: list[str], env: dict[str, str]) -> str:
        done = subprocess.run(
            command,
            env={**self.env, **env}, capture_output=True, text=True, timeout=300, cwd=self.home,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, algorithm: str, **parameters: Any) -> str:
        """Start a training of one of the test's algorithms in the pool; the run's id."""
        return str(self.do("run", "train", *flags(algorithm, parameters))["flow_run_id"])

    def show(self, run: str) -> dict[str, Any]:
        return dict(self.do("runs", "show", run))

    def named(self, name: str, timeout: float = 60) -> str:
        """The id of the run called ``name``, as soon as there is one."""
        return wait_for(
            lambda: next(
                (row["id"] for row in self.do("runs", "list") if row["name"] == name), None
            ),
            timeout,
            f"a run called {name}",
        )

    def wait_for_state(self, run: str, *states: str, timeout: float = 60) -> dict[str, Any]:
        known: object = None

        def reached() -> dict[str, Any] | None:
            # Prefect's answer is cheap, and the word does not change without it.
            nonlocal known
            try:
                state = self.prefect(f"flow_runs/{run}")["state"]
            except urllib.error.HTTPError:
                raise
            except OSError:  # it is just started again
                return None
            if state == known:
                return None
            found = self.show(run)
            if found["state"] in states:
                return found
            known = state if state["type"] not in _ENDED else None
            return None

        try:
            return wait_for(reached, timeout, f"{run} to become {states}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._told(run)}") from error

    def _told(self, run: str) -> str:
        """What there is to say of a run that does not become what it should."""
        found = self.show(run)
        asked = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
        lines = [one["message"] for one in self.prefect("logs/filter", asked)]
        said = "\n".join([f"{found['state']}: {found['message']}", *lines[-40:]])
        return f"{said}\n{found.get('result')}"

    def parts(self) -> dict[str, Any]:
        return {part["name"]: part for part in self.do("status")["parts"]}

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this home."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except (psutil.Error, OSError):
                continue
            marks = (environment.get("MODELYARD_PART", ""), environment.get("MODELYARD_RUN", ""))
            if any(mark.endswith(f"@{self.home}") for mark in marks):
                found.append(process)
        return found

    def close(self) -> None:
        if not self._place.exists():  # it is closed
            return
        self.ask("down")
        for process in self.processes():
            process.kill()
        shutil.rmtree(self._place, ignore_errors=True)


def flags(algorithm: str, parameters: dict[str, Any]) -> list[str]:
    asked = {"algorithm.uri": ALGORITHMS, "algorithm.entry_point": f"{algorithm}.py", **parameters}
    return [
        part
        for key, value in asked.items()
        for part in ("-p", f"{key}={json.dumps(value, default=str)}")
    ]


def wait_for(ask: Callable[[], T | None], timeout: float, what: str) -> T:
    """Ask until the answer is neither None nor False; the answer.

    ``timeout`` is in seconds of a machine that does nothing else; any other has three times that.
    """
    began = time.monotonic()
    while (waited := time.monotonic() - began) < SLOWEST * timeout:
        if answer := ask():
            return answer
        time.sleep(min(1.0, 0.1 + waited / 20))  # whoever asks often slows what is waited for
    raise AssertionError(f"waited {timeout:.0f} s in vain for {what}")


def kill(pid: int) -> None:
    """Kill one process outright."""
    os.kill(pid, signal.SIGKILL)
