"""A thread for code of others: it may hang, raise what it likes, and ends with the process."""

from __future__ import annotations

import asyncio
import ctypes
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_LARGE = 2**20  # bytes


class CodeExitError(Exception):
    """Stands in for an exception of user code that means something to the event loop."""


def as_exception(error: BaseException) -> Exception:
    """An exception of user code as one that a future can carry.

    ``SystemExit`` would end the server, ``CancelledError`` look like a client that is gone, and
    no future takes ``StopIteration``: whoever waits for it would wait for ever.
    """
    is_special = isinstance(error, StopIteration | asyncio.CancelledError)
    if isinstance(error, Exception) and not is_special:
        return error
    return CodeExitError(traceback.format_exception_only(error)[-1].strip())


async def run_aside(size: int, call: Callable[..., _Result], *given: Any) -> _Result:
    """What ``call`` returns for what it is ``given``, of so many bytes.

    Beyond a MiB it runs in a thread, because the server would not be live meanwhile.
    """
    if size <= _LARGE:
        return call(*given)
    return await asyncio.to_thread(call, *given)


class CallThread:
    """Runs calls one after another; for what its first call sets for its thread, in one thread.

    It is a daemon, so that the process can end while a call does not.
    """

    def __init__(self, name: str) -> None:
        """Start a thread called ``name``."""
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, daemon=True, name=name)
        self._thread.start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Have ``call`` run; its future has the result, or an exception that futures carry."""
        found: Future[Any] = Future()
        found.set_running_or_notify_cancel()
        self._calls.put((call, found))
        return found

    def end(self) -> None:
        """End the thread after the calls that it has."""
        self._calls.put(None)

    def interrupt(self) -> None:
        """Raise an exception in the call that runs, as soon as it runs Python code."""
        self.end()
        identifier = ctypes.c_ulong(self._thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(identifier, ctypes.py_object(TimeoutError))

    def _work(self) -> None:
        while given := self._calls.get():
            call, found = given
            try:
                found.set_result(call())
            except BaseException as error:  # noqa: BLE001 (user code; for who waits)
                found.set_exception(as_exception(error))
