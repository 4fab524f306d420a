"""Tiny parts, a supervisor of them, and a caller of its control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

import psutil

from infra.home import Home
from infra.stack.parts import Part
from tests.processes import with_variable

SLEEP = "exec sleep 600"


def part(name: str, script: str = SLEEP, **options: Any) -> Part:
    """A part that runs a shell script in the home; ready at once unless told otherwise."""
    options = {"ready": lambda: True, "grace": 0.5, **options}
    return Part(name, ["sh", "-c", script], **options)


class Caller:
    """One connection to the supervisor's control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def say(self, operation: str) -> None:
        self._writer.write(json.dumps({"op": operation}).encode() + b"\n")
        await self._writer.drain()

    async def hear(self) -> dict[str, Any]:
        return json.loads(await self._reader.readline())  # type: ignore[no-any-return]

    async def ask(self, operation: str) -> dict[str, Any]:
        await self.say(operation)
        return await self.hear()

    async def parts(self) -> dict[str, dict[str, Any]]:
        return {part["name"]: part for part in (await self.ask("status"))["parts"]}

    async def until(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not holds(part := (await self.parts())[name]):
            await asyncio.sleep(0.02)
        return part

    def leave(self) -> None:
        self._writer.close()


class Stack:
    """A supervisor of fake parts, run in the test's own event loop."""

    def __init__(self, home: Home, task: asyncio.Task[None]) -> None:
        self.home = home
        self.task = task

    async def call(self) -> Caller:
        while True:
            assert not self.task.done(), await self.task
            with contextlib.suppress(OSError):
                control = json.loads(self.home.record.read_text())["control"]
                return Caller(*await asyncio.open_unix_connection(control))
            await asyncio.sleep(0.01)


Supervised = Callable[..., contextlib.AbstractAsyncContextManager[Stack]]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def left(home: Home) -> list[psutil.Process]:
    return with_variable("MODELYARD_PART", f"@{home.root}")
