"""Retries during a restart of the Prefect server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import httpx

T = TypeVar("T")

SECONDS = 600.0
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 10.0
_SERVER_ERROR = 500
# What Prefect's client raises, without a class of its own, of a server that does not answer.
_UNREACHABLE = "Failed to reach API"


def is_outage(error: BaseException) -> bool:
    """Whether an error of Prefect's client means that its server is temporarily away."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= _SERVER_ERROR
    if isinstance(error, RuntimeError):
        return _UNREACHABLE in str(error)
    return isinstance(error, httpx.TransportError)


def retry_during_outage(
    ask: Callable[[], T],
    report: Callable[[str], None],
    *,
    seconds: float = SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call Prefect, retrying while its server is away.

    Args:
        ask: The call, which may be repeated.
        report: Receives a line for each wait.
        seconds: After so long of waiting the last error is raised.
        sleep: Waits for so many seconds.
    """
    left, wait = seconds, _FIRST_WAIT
    while True:
        try:
            return ask()
        except (httpx.HTTPError, RuntimeError) as error:
            if not is_outage(error) or left <= 0:
                raise
            why = str(error) or type(error).__name__
            report(f"Prefect does not answer ({why}). It is waited for, {left:.0f} s at most.")
        sleep(min(wait, left))
        left, wait = left - wait, min(2 * wait, _LONGEST_WAIT)
