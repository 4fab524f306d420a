"""How a job ended, in words."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from infra import script
from pipelines.launchers.base import Ended

_MOST_CHARACTERS = 500


def ended(one: script.Ended, limit: float, hide: Callable[[str], str]) -> Ended:
    """The end of a job.

    Args:
        one: How its process ended.
        limit: Its time limit in seconds.
        hide: What is told of a line that it has printed.
    """
    if one.ending is script.Ending.STOPPED:
        return Ended(one.code or -signal.SIGTERM, "It was stopped.")
    if one.ending is script.Ending.TIMED_OUT:
        return Ended(one.code or -signal.SIGTERM, f"It did not end within its {limit:g} seconds.")
    return Ended(one.code, reason(one.code, [*map(hide, one.tail)]))


def reason(code: int, tail: Sequence[str]) -> str:
    """Why a job failed: its status, and the last line that it printed; "" if it did not."""
    if code == 0:
        return ""
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    how = f"exit status {code}"
    if code < 0:
        how = f"signal {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += " (perhaps for want of memory)"
    return f"It ended with {how}: {last[:_MOST_CHARACTERS]}" if last else f"It ended with {how}."
