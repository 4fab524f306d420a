"""Exit status of a workload: its code, its cause and the reason in words."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

_MOST_CHARACTERS = 500
_SIGNALS = {128 + one: -one for one in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV,
                                        signal.SIGABRT, signal.SIGINT)}  # fmt: skip


class ExitCause(Enum):
    """Why processes ended."""

    EXITED = "exited"
    STOPPED = "stopped"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class ExitStatus:
    """How a workload, or a group of processes, ended.

    Attributes:
        code: Exit status; negative: the signal that killed it. In a group, that of the process
            whose failure ended the others.
        reason: Why it failed, for people; "" if it did not, or if no reason was derived.
        cause: Whether it exited, was stopped, or reached its time limit.
        tail: The last lines of that process's output, of a group only.
        process: The name of that process, of a group only.
        silent: Names of the group's processes that printed nothing.
    """

    code: int
    reason: str = ""
    cause: ExitCause = ExitCause.EXITED
    tail: tuple[str, ...] = ()
    process: str = ""
    silent: tuple[str, ...] = ()


def explain(status: ExitStatus, limit: float, redact: Callable[[str], str]) -> ExitStatus:
    """Derive a workload's exit status, with a reason, from that of its process.

    Args:
        status: The process's exit status.
        limit: The workload's time limit in seconds.
        redact: Hides secrets in a line of its output.
    """
    if status.cause is ExitCause.STOPPED:
        return stopped(status.code)
    if status.cause is ExitCause.TIMED_OUT:
        return timed_out(status.code, limit)
    return ExitStatus(status.code, reason(status.code, [*map(redact, status.tail)]))


def from_shell(code: int) -> int:
    """Convert a shell's or container's exit code: 128 + N is the signal N."""
    return _SIGNALS.get(code, code)


def stopped(code: int | None = None) -> ExitStatus:
    """Exit status of a stopped workload."""
    return ExitStatus(code or -signal.SIGTERM, "It was stopped.", ExitCause.STOPPED)


def timed_out(code: int | None, limit: float) -> ExitStatus:
    """Exit status of a workload that reached its time limit."""
    why = f"It did not end within its {limit:g} seconds."
    return ExitStatus(code or -signal.SIGTERM, why, ExitCause.TIMED_OUT)


def reason(code: int, tail: Sequence[str]) -> str:
    """Describe a failure: the code and the last line of output; "" for exit code 0."""
    if code == 0:
        return ""
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    how = describe(code)
    return f"It ended with {how}: {last[:_MOST_CHARACTERS]}" if last else f"It ended with {how}."


def describe(code: int) -> str:
    """Name an exit status, or the signal that it stands for, in a sentence."""
    if code >= 0:
        return f"exit status {code}"
    why = " (perhaps for want of memory)" if -code == signal.SIGKILL else ""
    return f"signal {signal.Signals(-code).name}{why}"
