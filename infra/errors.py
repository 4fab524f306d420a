"""The one error root: what is wrong, where, and how to mend it."""

from __future__ import annotations

from infra.masking import mask


class ModelyardError(Exception):
    """Root of every error that a person is meant to read.

    Attributes:
        code: A stable word for programs, such as ``HyperparametersTooMany``.
        message: What is wrong and where, in one sentence. Secrets in URLs are masked.
        hint: How to mend it, in one sentence; may be empty.
    """

    code = "Error"

    def __init__(self, message: str, hint: str = "", *, code: str | None = None) -> None:
        message = mask(message)
        super().__init__(message)
        self.code = code or type(self).code
        self.message = message
        self.hint = mask(hint)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def as_dict(self) -> dict[str, str]:
        """The error as the command's ``--json`` and HTTP answers give it."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class BadInputError(ModelyardError):
    """What the caller asked for cannot be done as written; nothing was started."""

    code = "BadInput"


class NotFoundError(ModelyardError):
    """The thing named does not exist."""

    code = "NotFound"


class ConflictError(ModelyardError):
    """The thing's present state forbids what was asked."""

    code = "Conflict"


class DiskFullError(ModelyardError):
    """There is not enough room on a disk that the action writes to."""

    code = "DiskFull"


class RunFailedError(ModelyardError):
    """A run ended in a state other than its good one.

    Attributes:
        state: The reference's word for how it ended, such as ``FAIL TRAIN``.
    """

    code = "RunFailed"

    def __init__(
        self, message: str, hint: str = "", *, state: str, code: str | None = None
    ) -> None:
        super().__init__(message, hint, code=code)
        self.state = state


class StackError(ModelyardError):
    """The local stack or one of its parts could not be brought up or reached."""

    code = "Stack"
