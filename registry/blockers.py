"""What stands in the way of a deletion, with the command that removes or shows it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Blocker:
    """A reason why a thing may not be deleted.

    Attributes:
        sentence: What is in the way.
        arguments: The command against it, without ``modelyard``; none where an earlier blocker
            has it.
    """

    sentence: str
    arguments: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command against it, as a shell reads it."""
        return shlex.join(("modelyard", *self.arguments))


def sentences(blockers: Iterable[Blocker]) -> list[str]:
    """Return the blockers' sentences."""
    return [one.sentence for one in blockers]
