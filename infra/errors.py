"""Root of all errors for users: code, message and hint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from infra.masking import mask
from infra.texts import make_printable


class ModelyardError(Exception):
    """Base class of all errors for users.

    Attributes:
        code: A stable word for programs, such as ``HyperparametersTooMany``.
        message: What happened, to what and why, in one sentence. Secrets in URLs are masked,
            and control characters, which may be those of a user's data or code, replaced.
        hint: How to fix it, in one sentence. Every error that is raised has one.
        flow_run_id: The run that raised it, where a flow that was called in Python did; None
            where no run exists, as after a refusal.
    """

    code = "Error"
    flow_run_id: str | None = None

    def __init__(self, message: str, hint: str = "", *, code: str | None = None) -> None:
        message = make_printable(mask(message))
        super().__init__(message)
        self.code = code or type(self).code
        self.message = message
        self.hint = make_printable(mask(hint))

    def __str__(self) -> str:
        between = "\n" if "\n" in self.message else " "  # a list of faults keeps to its lines
        return f"{self.message}{between}{self.hint}".strip()

    def as_dict(self) -> dict[str, str]:
        """Return the error as in ``--json`` output and HTTP responses."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


@contextmanager
def naming(subject: str) -> Iterator[None]:
    """Begin the messages of errors that are raised within with their subject.

    Args:
        subject: What they are about, such as the parameter ``algorithm.uri``.
    """
    try:
        yield
    except ModelyardError as error:
        error.message = f"{subject}: {error.message}"
        error.args = (error.message,)
        raise


class BadInputError(ModelyardError):
    """The request is invalid; nothing was started."""

    code = "BadInput"


class NotFoundError(ModelyardError):
    """The named object does not exist."""

    code = "NotFound"


class ConflictError(ModelyardError):
    """The object is in a state that does not allow the request."""

    code = "Conflict"


class DiskFullError(ModelyardError):
    """A disk or an object store is full."""

    code = "DiskFull"


class RunFailedError(ModelyardError):
    """A run failed.

    Attributes:
        state: The reference's status word, such as ``FAIL TRAIN``.
    """

    code = "RunFailed"

    def __init__(
        self, message: str, hint: str = "", *, state: str, code: str | None = None
    ) -> None:
        super().__init__(message, hint, code=code)
        self.state = state


class StackError(ModelyardError):
    """The local stack or one of its parts could not be started or reached."""

    code = "Stack"
