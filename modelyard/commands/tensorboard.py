"""``modelyard tensorboard``."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from infra import home as homes
from infra import settings
from infra.connection import clean_environment
from infra.errors import NotFoundError, StackError
from infra.forkclient import own_python
from infra.home import Home
from infra.leash_client import SpawnedLeash
from infra.stack import parts
from modelyard import login, output, tensorboards
from modelyard.connecting import connected
from modelyard.options import Json
from modelyard.output import console
from modelyard.tensorboards import TensorBoard
from registry import experiments
from registry.runs import runs
from registry.runs.tensorboard_logs import Fetched
from tasks import tensorboard as views

app = typer.Typer(add_completion=False)

_REFRESH_SECONDS = 5.0
_START_SECONDS = 60.0
_MOST_RUNS = 10_000


def _link(view: Path, key: str, home: Home, fetched: Fetched) -> int:
    """Link the logs of an experiment's runs, or of a run; return how many have any."""
    try:
        found = experiments.show(key, _MOST_RUNS).runs
        return views.link_logs(view, found, home, single=False, fetched=fetched)
    except NotFoundError:
        try:
            return views.link_logs(view, [runs.show(key)], home, single=True, fetched=fetched)
        except NotFoundError:
            raise NotFoundError(
                f"There is no experiment and no run {key!r}.",
                "modelyard experiment list and modelyard runs list list the existing ones.",
            ) from None


@contextlib.contextmanager
def _refreshed(link: Callable[[], int]) -> Iterator[None]:
    """Keep adding new runs."""
    done = threading.Event()

    def refresh() -> None:
        while not done.wait(_REFRESH_SECONDS):
            with contextlib.suppress(Exception):  # the edge of the loop: shown the next time
                link()

    thread = threading.Thread(target=refresh, daemon=True, name="runs")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_REFRESH_SECONDS)


def _wait(home: Home, url: str, process: SpawnedLeash) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.runs():
        if parts.answers(home, url):
            return
        time.sleep(0.1)
    raise StackError("TensorBoard did not start.", "Its output is above.")


def _start(view: Path, listener: socket.socket) -> SpawnedLeash:
    return SpawnedLeash(
        [*own_python("modelyard.tensorboard_server"), str(listener.fileno()), str(view)],
        env={**clean_environment(), "MODELYARD_HOME": str(homes.current().root)},
        cwd=view.parent,
        grace=2.0,
        keep=(listener.fileno(),),
    )


@app.command()
def tensorboard(
    key: Annotated[
        str,
        typer.Argument(metavar="EXPERIMENT|RUN", help="An experiment, or a run by id or name."),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; another one is chosen if it is in use.")
    ] = 6006,
    browser: Annotated[
        bool, typer.Option("--browser", help="Open the page in the browser.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the TensorBoard logs of an experiment, a run or a tuning's trials until Ctrl-C."""
    home = homes.current()
    with connected(), tempfile.TemporaryDirectory(prefix="modelyard-tensorboard-") as folder:
        view = Path(folder, "runs")
        link = partial(_link, view, key, home, Fetched(Path(folder, "fetched")))
        shown = link()
        if shown == 0:
            raise NotFoundError(
                f"There are no TensorBoard logs of {key!r}.",
                "A script writes them to EM_TENSORBOARD_LOG_DIR; they are kept "
                f"{settings.load().tensorboard_days:g} days.",
                code="NoLogs",
            )
        with parts.bind(port) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            process = _start(view, listener)
        threading.Thread(target=_drain, args=(process,), daemon=True, name="output").start()
        try:
            _wait(home, url, process)
            if json:
                output.as_json({"url": url, "runs": shown})
            else:
                page = login.with_token(url) if console.is_terminal else url
                line = f"TensorBoard shows {shown} runs: {page}  (Ctrl-C ends it)"
                console.print(line, markup=False)
            if browser:
                login.open_browser(url)
            with tensorboards.announced(home, TensorBoard(key, url)), _refreshed(link):
                process.wait()
        finally:
            process.stop()
            process.wait()


def _drain(process: SpawnedLeash) -> None:
    """Copy TensorBoard's output to stderr; stdout is for the result only."""
    while data := os.read(process.output.fileno(), 4096):
        sys.stderr.buffer.write(data)
        sys.stderr.flush()
