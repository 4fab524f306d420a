"""``modelyard up``, ``down`` and ``status``."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from infra import home as homes
from infra import settings
from infra.errors import ConflictError, ModelyardError
from infra.home import Home
from infra.stack import client
from infra.stack.supervisor import Supervisor, supervise
from modelyard import output
from modelyard.options import Json
from modelyard.output import console

app = typer.Typer(add_completion=False)

_NO_DOOR = (
    "MODELYARD_DOOR is off: every user of this machine, and every web page that its browsers "
    "show, can run programs as you."
)
_TEMPORARY = (
    "It is temporary: it has no workers, and ends with the command or script that started it."
)
_FOLLOW_SECONDS = 0.3


def _show(status: dict[str, Any]) -> None:
    table = Table(
        "part", "state", "pid", "restarts", box=None, header_style="bold", pad_edge=False
    )
    for part in status["parts"]:
        table.add_row(part["name"], part["state"], str(part["pid"] or ""), str(part["restarts"]))
    console.print(table)
    for name, link in status["links"].items():
        console.print(f"{name:<8} {output.address(link)}", markup=False)
    output.login_hint()
    if not status["lasting"]:
        console.print(_TEMPORARY, markup=False)
    for part in status["parts"]:
        if part["error"]:
            console.print(f"\n{part['error']['message']}\n{part['error']['hint']}", markup=False)
    if not status["door"]:
        console.print(_NO_DOOR, markup=False)


def _public(status: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name != "endpoints"}


@app.command()
def up(
    detach: Annotated[
        bool,
        typer.Option(
            "--detach", "-d", help="Run in the background; return when every part is healthy."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Start the local stack; without --detach, stay and show its logs until Ctrl-C."""
    home = homes.current()
    if not detach:
        try:
            asyncio.run(_foreground(home, as_json=json))
        except ConflictError:
            running = client.status(home)
            if running is None or not running["lasting"]:  # a command's own, or one that is ending
                asyncio.run(_attached(home, as_json=json))
                return
            console.print("The stack is up already.") if not json else None
        else:
            return
    began = time.monotonic()
    status = client.up(home, settings.load())
    if json:
        output.as_json(_public(status))
        return
    console.print(f"The stack is up ({time.monotonic() - began:.1f} s).")
    _show(status)


async def _foreground(home: Home, *, as_json: bool) -> None:
    following: list[asyncio.Task[None]] = []

    def started(supervisor: Supervisor) -> None:
        following.append(asyncio.create_task(_announce(supervisor, as_json=as_json)))
        if not as_json:
            following.append(asyncio.create_task(_follow(home)))

    try:
        await supervise(home, settings.load(), lasting=True, started=started)
    finally:
        for task in following:
            task.cancel()


async def _attached(home: Home, *, as_json: bool) -> None:
    """Wait in the foreground for a stack that another process supervises."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(signum, ended.set)
    with client.attached(home, settings.load()) as (status, connection):
        _announce_ready(status, as_json=as_json)
        loop.add_reader(connection, ended.set)  # it has ended by itself
        following = None if as_json else asyncio.create_task(_follow(home))
        await ended.wait()
        loop.remove_reader(connection)
        if following:
            following.cancel()


async def _announce(supervisor: Supervisor, *, as_json: bool) -> None:
    while not (status := supervisor.status())["ready"]:
        await asyncio.sleep(_FOLLOW_SECONDS)
    # In a thread: links are made by asking the stack, which this loop answers.
    await asyncio.to_thread(_announce_ready, status, as_json=as_json)


def _announce_ready(status: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.as_json(_public(status))
    else:
        _show(status)
        console.print("Ctrl-C ends it.")


async def _follow(home: Home) -> None:
    """Follow the logs of the parts from now on."""
    positions = {path: path.stat().st_size for path in home.logs.glob("*.log")}
    while True:
        await asyncio.sleep(_FOLLOW_SECONDS)
        for path in sorted(home.logs.glob("*.log")):
            text, positions[path] = _new_text(path, positions.get(path, 0))
            for line in text.splitlines():
                console.print(f"[dim]{path.stem:>10}[/dim] ", end="")
                console.print(line, markup=False)


def _new_text(path: Path, position: int) -> tuple[str, int]:
    with path.open("rb") as file:
        if path.stat().st_size < position:  # it was rotated
            position = 0
        file.seek(position)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode(errors="replace"), position + len(whole)


@app.command()
def down(json: Json = False) -> None:
    """Stop the local stack and wait for its end; interrupted runs can be retried later."""
    was_up = client.down(homes.current())
    if json:
        output.as_json({"running": False, "was_running": was_up})
    else:
        console.print("The stack is down." if was_up else "The stack was not up.")


@app.command()
def status(
    logs: Annotated[
        str, typer.Option(help="Print the last lines of this part's log instead, such as worker.")
    ] = "",
    lines: Annotated[int, typer.Option("-n", min=1, help="With --logs: number of lines.")] = 50,
    json: Json = False,
) -> None:
    """Show the parts of the local stack with their URLs; exit status 1 if it is not up."""
    home = homes.current()
    if logs:
        path = home.logs / f"{logs}.log"
        if not path.exists():
            known = ", ".join(sorted(log.stem for log in home.logs.glob("*.log"))) or "none"
            raise ModelyardError(f"There is no log of {logs!r}.", f"There are: {known}.")
        tail = path.read_text(errors="replace").splitlines()[-lines:]
        if json:
            output.as_json(tail)
        else:
            console.print("\n".join(tail), markup=False)
        return
    found = client.status(home)
    if found is None:
        if json:
            output.as_json({"running": False, "ready": False, "parts": [], "links": {}})
        else:
            console.print("The stack is not up. Start it: modelyard up --detach")
        raise typer.Exit(1)
    if json:
        output.as_json(_public(found))
    else:
        _show(found)
    if not found["ready"]:
        raise typer.Exit(1)
