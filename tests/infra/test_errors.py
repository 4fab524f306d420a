from __future__ import annotations

import pytest

from infra import errors
from infra.errors import BadInputError, ModelyardError, RunFailedError


def test_an_error_reads_as_message_and_hint() -> None:
    assert str(ModelyardError("It is broken.", "Mend it.")) == "It is broken. Mend it."
    assert str(ModelyardError("It is broken.")) == "It is broken."


def test_an_error_is_told_to_programs_by_code() -> None:
    error = BadInputError("Too many.", "Give fewer.", code="TooMany")

    assert error.as_dict() == {"code": "TooMany", "message": "Too many.", "hint": "Give fewer."}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ModelyardError, "Error"),
        (errors.BadInputError, "BadInput"),
        (errors.NotFoundError, "NotFound"),
        (errors.ConflictError, "Conflict"),
        (errors.DiskFullError, "DiskFull"),
        (errors.StackError, "Stack"),
    ],
)
def test_codes_are_stable(kind: type[ModelyardError], code: str) -> None:
    assert kind("x").code == code
    assert isinstance(kind("x"), ModelyardError)


def test_a_failed_run_names_its_state() -> None:
    error = RunFailedError("It failed.", state="FAIL TRAIN")

    assert (error.state, error.code) == ("FAIL TRAIN", "RunFailed")
