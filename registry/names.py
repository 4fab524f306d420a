"""What things may be called, and how they may be described."""

from __future__ import annotations

from infra.errors import BadInputError
from infra.texts import is_storable

LONGEST = 250  # MLflow's, of a key as well
LONGEST_DESCRIPTION = 4000
_FORBIDDEN = frozenset('/:"')  # MLflow's, in a registered model's name and in its filters


def check(name: str, parameter: str = "", code: str = "NameInvalid") -> None:
    """Refuse a name of a run or of a model that could not be kept.

    Args:
        name: The name.
        parameter: The parameter that has it, for the message; "" if that is clear.
        code: The error's code.

    Raises:
        BadInputError: With ``code``.
    """
    if (
        not name
        or name != name.strip()
        or len(name) > LONGEST
        or not name.isprintable()
        or _FORBIDDEN.intersection(name)
        or name == "."
        or name.startswith("..")
    ):
        raise BadInputError(
            f"{parameter}: " * bool(parameter) + f"The name {name[:60]!r} cannot be used.",
            f"Give 1 to {LONGEST} printable characters without '/', ':' and '\"', without spaces "
            "at its ends, and do not begin with '..'.",
            code=code,
        )


def check_plain(name: str, code: str = "NameInvalid") -> None:
    """Refuse a name of an experiment or a template, which no filter of MLflow's holds.

    Raises:
        BadInputError: With ``code``.
    """
    if name != name.strip() or not 1 <= len(name) <= LONGEST or not name.isprintable():
        raise BadInputError(
            f"The name {name[:60]!r} cannot be used.",
            f"Give 1 to {LONGEST} printable characters, without spaces at its ends.",
            code=code,
        )


def check_run(name: str, experiment: str, description: str) -> None:
    """Refuse what a run with an MLflow run cannot be called, kept in or described as.

    Args:
        name: Its name; "" for the one that Prefect gives.
        experiment: The name of its experiment.
        description: Free text.

    Raises:
        BadInputError: With the code ``NameInvalid``, ``ExperimentInvalid`` or ``TextInvalid``.
    """
    if name:
        check(name)
    check_plain(experiment, "ExperimentInvalid")
    check_description(description)


def check_description(description: str) -> None:
    """Refuse a description that could not be kept.

    Raises:
        BadInputError: With the code ``TextInvalid``.
    """
    if not is_storable(description) or len(description) > LONGEST_DESCRIPTION:
        raise BadInputError(
            f"The description is not text, or has over {LONGEST_DESCRIPTION} characters.",
            "Shorten it.",
            code="TextInvalid",
        )
