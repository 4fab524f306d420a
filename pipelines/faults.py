"""Faults of a pipeline, each with its place, reported all at once."""

from __future__ import annotations

from dataclasses import dataclass

from infra.errors import BadInputError

MOST_TOLD = 50
_LONGEST = 300
_FIX = "Fix the pipeline where it is defined, and compile it again."


@dataclass(frozen=True)
class PipelineFault:
    """A fault of a pipeline.

    Attributes:
        place: Its path, such as ``root.dag.tasks.train.inputs.parameters.rate``.
        problem: The problem, in one sentence.
        remedy: How to fix it, in one sentence; may be empty.
    """

    place: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        sentence = f"{self.place}: {self.problem}" if self.place else self.problem
        return f"{sentence} {self.remedy}".strip()


class PipelineInvalidError(BadInputError):
    """A pipeline, or its arguments, have faults; nothing was started.

    Attributes:
        faults: All faults, including those that the message leaves out.
    """

    code = "PipelineInvalid"

    def __init__(
        self, what: str, found: list[PipelineFault], hint: str = _FIX, *, code: str | None = None
    ) -> None:
        """Report faults.

        Args:
            what: The faulty object, such as ``The pipeline digits``.
            found: The faults; at least one.
            hint: How to fix them, where the pipeline is not what is wrong.
            code: A code instead of ``PipelineInvalid``.
        """
        number = "a fault" if len(found) == 1 else f"{len(found)} faults"
        lines = [str(fault) for fault in found[:MOST_TOLD]]
        if len(found) > MOST_TOLD:
            lines.append(f"… and {len(found) - MOST_TOLD} more.")
        listed = "\n".join(lines)
        super().__init__(f"{what} has {number}:\n{listed}", hint, code=code)
        self.faults = found


class FaultCollector:
    """Collector of faults, so that checking continues after the first one.

    Attributes:
        found: The faults so far.
    """

    def __init__(self) -> None:
        self.found: list[PipelineFault] = []

    def add(self, place: str, problem: str, remedy: str = "") -> None:
        """Add a fault."""
        self.found.append(PipelineFault(place, problem, remedy))

    def add_error(self, place: str, error: BadInputError) -> None:
        """Add the error of another check as a fault."""
        self.add(place, error.message, error.hint)

    def raise_any(self, what: str, hint: str = _FIX, *, code: str | None = None) -> None:
        """Raise if there was a fault.

        Args:
            what: The faulty object.
            hint: How to fix it, where the pipeline is not what is wrong.
            code: A code instead of ``PipelineInvalid``.

        Raises:
            PipelineInvalidError: With all of them.
        """
        if self.found:
            raise PipelineInvalidError(what, self.found, hint, code=code)


def shorten(value: object) -> str:
    """Format a value for a message: on one line, and not too long."""
    sentence = repr(value)
    return sentence if len(sentence) <= _LONGEST else f"{sentence[:_LONGEST]}…"
