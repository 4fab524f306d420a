"""What is wrong with a pipeline: every fault with its place, told all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from infra.errors import BadInputError

MOST_TOLD = 50
_MOST_NEAR = 3
_LONGEST = 300


@dataclass(frozen=True)
class Fault:
    """Something that is wrong.

    Attributes:
        place: Where, such as ``root.dag.tasks.train.inputs.parameters.rate``.
        problem: What, in one sentence.
        remedy: How to mend it, in one sentence; may be empty.
    """

    place: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        told = f"{self.place}: {self.problem}" if self.place else self.problem
        return f"{told} {self.remedy}".strip()


class PipelineInvalidError(BadInputError):
    """A pipeline, or what it is given, has faults; nothing was started.

    Attributes:
        faults: All of them, also those that the message leaves out.
    """

    code = "PipelineInvalid"

    def __init__(self, what: str, found: list[Fault], *, code: str | None = None) -> None:
        """Tell of faults.

        Args:
            what: What has them, such as ``The pipeline digits``.
            found: The faults; at least one.
            code: Another code than ``PipelineInvalid``.
        """
        number = "a fault" if len(found) == 1 else f"{len(found)} faults"
        lines = [str(fault) for fault in found[:MOST_TOLD]]
        if len(found) > MOST_TOLD:
            lines.append(f"… and {len(found) - MOST_TOLD} more.")
        super().__init__(f"{what} has {number}:\n" + "\n".join(lines), code=code)
        self.faults = found


class Faults:
    """Collects faults, so that checking goes on after the first one.

    Attributes:
        found: What was wrong until now.
    """

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, place: str, problem: str, remedy: str = "") -> None:
        """Note a fault."""
        self.found.append(Fault(place, problem, remedy))

    def add_error(self, place: str, error: BadInputError) -> None:
        """Note as a fault what another part has refused."""
        self.add(place, error.message, error.hint)

    def raise_any(self, what: str, *, code: str | None = None) -> None:
        """Refuse ``what`` if there was a fault.

        Raises:
            PipelineInvalidError: With all of them.
        """
        if self.found:
            raise PipelineInvalidError(what, self.found, code=code)


def known(names: Iterable[str], wanted: str, none: str = "There are none.") -> str:
    """A hint that names what there is, those first that look like ``wanted``."""
    names = sorted(names)
    if not names:
        return none
    near = difflib.get_close_matches(wanted, names, _MOST_NEAR) or names[:_MOST_NEAR]
    more = "" if len(near) == len(names) or near != names[:_MOST_NEAR] else ", …"
    return f"There is: {', '.join(near)}{more}."


def shortened(value: object) -> str:
    """A value as a fault may quote it: on one line, and no longer than people read."""
    told = repr(value)
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"
