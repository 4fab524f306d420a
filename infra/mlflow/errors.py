"""The error of a request to MLflow."""

from __future__ import annotations

RESOURCE_DOES_NOT_EXIST = "RESOURCE_DOES_NOT_EXIST"
_INTERNAL_ERROR = "INTERNAL_ERROR"


class MlflowException(Exception):
    """MLflow refuses a request, or does not answer.

    Attributes:
        error_code: MLflow's code, such as ``RESOURCE_DOES_NOT_EXIST``; ``INTERNAL_ERROR`` if it
            does not answer.
        status_code: The HTTP status; 500 if it does not answer.
    """

    def __init__(
        self, message: str, error_code: str = _INTERNAL_ERROR, status_code: int = 500
    ) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.status_code = status_code

    @property
    def is_missing(self) -> bool:
        """Whether it says that the resource does not exist."""
        return self.error_code == RESOURCE_DOES_NOT_EXIST
