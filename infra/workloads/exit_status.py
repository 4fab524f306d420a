"""Exit statuses in words."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from infra.script import Ended, Ending
from infra.workloads.base import ExitStatus

_MOST_CHARACTERS = 500
_SIGNALS = {128 + one: -one for one in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV,
                                        signal.SIGABRT, signal.SIGINT)}  # fmt: skip


def from_script(ended: Ended, limit: float, redact: Callable[[str], str]) -> ExitStatus:
    """Exit status of a workload that ran as a script.

    Args:
        ended: How its process ended.
        limit: Its time limit in seconds.
        redact: Hides secrets in a line of its output.
    """
    if ended.ending is Ending.STOPPED:
        return stopped(ended.code)
    if ended.ending is Ending.TIMED_OUT:
        return timed_out(ended.code, limit)
    return ExitStatus(ended.code, reason(ended.code, [*map(redact, ended.tail)]))


def from_shell(code: int) -> int:
    """Exit code as of a process: what containers report as 128 + N is the signal N."""
    return _SIGNALS.get(code, code)


def stopped(code: int | None = None) -> ExitStatus:
    """Exit status of a workload that was stopped."""
    return ExitStatus(code or -signal.SIGTERM, "It was stopped.", Ending.STOPPED)


def timed_out(code: int | None, limit: float) -> ExitStatus:
    """Exit status of a workload that was ended at its time limit."""
    why = f"It did not end within its {limit:g} seconds."
    return ExitStatus(code or -signal.SIGTERM, why, Ending.TIMED_OUT)


def reason(code: int, tail: Sequence[str]) -> str:
    """Why a workload failed: its status, and the last line of its output; "" if it did not."""
    if code == 0:
        return ""
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    how = f"exit status {code}"
    if code < 0:
        how = f"signal {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += " (perhaps for want of memory)"
    return f"It ended with {how}: {last[:_MOST_CHARACTERS]}" if last else f"It ended with {how}."
