"""A model's parameters: what serving passes on as arguments and as environment variables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from infra import secrets
from infra.errors import BadInputError

MOST = 100
LONGEST_NAME = 250
LONGEST_VALUE = 4000
LONGEST_ALL = 90_000  # in a tag of MLflow, which holds 100 000

Scalar = bool | int | float | str

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

_SCREAMING = re.compile(r"[A-Z][A-Z0-9_]*")

# Words end at other characters, at a capital after a small letter or a digit (modelName), and
# before the last capital of a row (HTTPPort). Digits belong to the word before them.
_BOUNDARY = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# A process that finds one of these changed does not start, or starts something else.
_RESERVED = frozenset(
    {"PATH", "HOME", "PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "IFS", "SHELL"}
)

_SECRET_WORDS = frozenset({
    "PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "SECRETS", "CREDENTIAL", "CREDENTIALS", "APIKEY",
    "PWD", "BEARER", "AUTHORIZATION",
})  # fmt: skip
_KEYS = frozenset({"API", "ACCESS", "PRIVATE", "SIGNING", "ENCRYPTION", "AUTH"})
# Of a vocabulary, such as pad_token.
_PLAIN_TOKENS = frozenset({
    "PAD", "EOS", "BOS", "MASK", "CLS", "SEP", "UNK", "STOP", "START", "END", "IMAGE", "SPECIAL",
})  # fmt: skip

# How the tokens of well-known services begin.
_SECRET_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16}|sk-(?=[A-Za-z_-]*\d)[\w-]{16}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[opsu]_[A-Za-z0-9]{16})"
)


def variable(name: str) -> str:
    """``name`` in SCREAMING_SNAKE_CASE: ``modelName`` and ``model-name`` are ``MODEL_NAME``.

    What is in that case already stays as it is.
    """
    if _SCREAMING.fullmatch(name):
        return name
    return "_".join(word for word in _BOUNDARY.split(name) if word).upper()


def arguments(parameters: Mapping[str, Scalar]) -> list[str]:
    """``["--name", "value", ...]`` with the names as they were written."""
    return [part for name, text in texts(parameters).items() for part in (f"--{name}", text)]


def environment(parameters: Mapping[str, Scalar]) -> dict[str, str]:
    """The same as environment variables. ``secret:NAME`` stays as it is, here and there."""
    return {variable(name): text for name, text in texts(parameters).items()}


def texts(parameters: Mapping[str, Scalar]) -> dict[str, str]:
    """The values as texts, by the names as they were written."""
    return {name: _text(value) for name, value in parameters.items()}


def secret_values(parameters: Mapping[str, Scalar]) -> dict[str, str]:
    """The values of those parameters that refer to secrets.

    Raises:
        NotFoundError: With the code ``SecretMissing``.
        BadInputError: If the name or the value is not valid in Prefect's blocks.
        StackError: If Prefect cannot be reached.
    """
    return {
        name: secrets.resolve(value)
        for name, value in parameters.items()
        if isinstance(value, str) and secrets.name_of(value)
    }


def _text(value: Scalar) -> str:
    """A value as a text; true and false as programs of every language read them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check(parameters: Mapping[str, object]) -> dict[str, Scalar]:
    """The parameters, if they can be passed on.

    Raises:
        BadInputError: With a code of its own for each fault. No value is ever in its message.
    """
    if len(parameters) > MOST:
        raise BadInputError(
            f"There are {len(parameters)} parameters, and at most {MOST} can be given.",
            "Put the rest into a file of the model.",
            code="ParametersTooMany",
        )
    seen: dict[str, str] = {}
    checked: dict[str, Scalar] = {}
    for name, value in parameters.items():
        _check_name(name, seen)
        checked[name] = _check_value(name, value)
        _check_secret(name, checked[name])
    if len(json.dumps(checked)) > LONGEST_ALL:
        raise BadInputError(
            f"The parameters are longer than {LONGEST_ALL} characters together.",
            "Put the long ones into a file of the model.",
            code="ParametersTooLong",
        )
    return checked


def _check_name(name: str, seen: dict[str, str]) -> None:
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME or not variable(name):
        raise BadInputError(
            f"The parameter's name {name[:60]!r} cannot be an argument.",
            f"Use 1 to {LONGEST_NAME} letters, digits, '_', '-' and '.', and begin with a letter "
            "or '_'.",
            code="ParameterNameInvalid",
        )
    made = variable(name)
    if made[0].isdigit() or made in _RESERVED:
        raise BadInputError(
            f"The parameter {name!r} would become the environment variable {made}.",
            "Choose another name.",
            code="ParameterNameReserved",
        )
    if seen.setdefault(made, name) != name:
        raise BadInputError(
            f"The parameters {seen[made]!r} and {name!r} would both be the environment variable "
            f"{made}.",
            "Rename one.",
            code="ParameterNameTwice",
        )


def _check_value(name: str, value: object) -> Scalar:
    scalar = isinstance(value, bool | int | float | str)
    if not scalar or (isinstance(value, float) and not math.isfinite(value)):
        raise BadInputError(
            f"The parameter {name!r} is not a string, finite number or boolean.",
            "Quote it to make it a string.",
            code="ParameterValueInvalid",
        )
    if isinstance(value, str) and ("\0" in value or len(value) > LONGEST_VALUE):
        raise BadInputError(
            f"The parameter {name!r} holds a zero byte or more than {LONGEST_VALUE} characters.",
            "Put it into a file of the model.",
            code="ParameterValueInvalid",
        )
    return value  # type: ignore[return-value]


def _check_secret(name: str, value: Scalar) -> None:
    if isinstance(value, str) and secrets.name_of(value) is not None:
        return
    how = "by its name" if _sounds_secret(name) else ""
    if isinstance(value, str) and _SECRET_VALUE.search(value):
        how = "by its value"
    if how and not isinstance(value, bool):
        raise BadInputError(
            f"The parameter {name!r} is a secret {how}, and its value would be readable by "
            "everybody.",
            f"Make a secret of it, and write {name}=secret:NAME.",
            code="SecretInPlainText",
        )


def _sounds_secret(name: str) -> bool:
    words = [word.rstrip("0123456789") for word in variable(name).split("_")]
    before = words[-2] if len(words) > 1 else ""
    last = words[-1]
    if last == "TOKENS":  # max_tokens counts them
        return not before or before in _KEYS
    if last.endswith("TOKEN"):
        return (last.removesuffix("TOKEN") or before) not in _PLAIN_TOKENS
    if last == "KEY":
        return before in _KEYS
    return bool(_SECRET_WORDS.intersection(words))
