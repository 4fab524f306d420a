"""What a run waits for, as whoever is to start it has said.

It is a label of the run's, since Prefect's states are not ours to repeat: a state that is set
once more could come after the one that the run itself has set meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from registry import labels

# Types of Prefect's states whose runs have begun, or never will.
_OVER = frozenset({"RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


class _State(Protocol):
    @property
    def type(self) -> Any:
        """One of Prefect's types."""


class _Run(Protocol):
    @property
    def labels(self) -> Mapping[str, Any]:
        """The run's labels."""

    @property
    def state(self) -> _State | None:
        """The run's state."""


def of(run: _Run) -> str:
    """What the run waits for, in words; "" if nobody has said so, or it has begun or ended."""
    return told(run.labels or {}, str(run.state.type.value) if run.state else "")


def told(own: Mapping[str, Any], state: str) -> str:
    """The same of a run with these labels and of this type of state."""
    return "" if state in _OVER else str(own.get(labels.WAITING) or "")
