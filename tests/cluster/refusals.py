"""What the API server refuses, as it says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.cluster.kinds import Kind

_CAUSES = {
    "Required value": "FieldValueRequired",
    "Invalid value": "FieldValueInvalid",
    "Duplicate value": "FieldValueDuplicate",
    "Not found": "FieldValueNotFound",
    "Unsupported value": "FieldValueNotSupported",
    "Forbidden": "FieldValueForbidden",
    "Too long": "FieldValueTooLong",
}


class Refusal(Exception):
    """A request that is not done; `code` is the HTTP status."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            told["details"] = self.details
        return told


class Missing(Refusal):
    """404: there is no such object."""


class Expired(Refusal):
    """410: a watch or a list goes on from what is no longer known."""


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong with a field of an object."""

    field: str
    kind: str
    """Such as "Invalid value"; the API's own words."""
    told: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.kind}{': ' if self.told else ''}{self.told}"


def invalid(field: str, value: object, why: str) -> Wrong:
    return Wrong(field, "Invalid value", f"{shown(value)}: {why}")


def shown(value: object) -> str:
    """A value, as errors write it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _of(kind: Kind, name: str) -> dict[str, Any]:
    return {
        "name": name,
        **({"group": kind.group} if kind.group else {}),
        "kind": kind.plural,
    }


def missing(kind: Kind, name: str) -> Missing:
    return Missing(404, "NotFound", f'{kind.resource} "{name}" not found', _of(kind, name))


def exists(kind: Kind, name: str) -> Refusal:
    return Refusal(
        409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _of(kind, name)
    )


def conflict(kind: Kind, name: str, why: str) -> Refusal:
    return Refusal(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}',
        _of(kind, name),
    )


def modified(kind: Kind, name: str) -> Refusal:
    return conflict(
        kind,
        name,
        "the object has been modified; please apply your changes to the latest version and try "
        "again",
    )


def forbidden(kind: Kind, name: str, why: str) -> Refusal:
    return Refusal(
        403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {why}', _of(kind, name)
    )


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)


def unprocessable(kind: Kind, name: str, wrongs: list[Wrong]) -> Refusal:
    told = [str(wrong) for wrong in wrongs]
    full = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    message = told[0] if len(told) == 1 else "[" + ", ".join(told) + "]"
    return Refusal(
        422,
        "Invalid",
        f'{full} "{name}" is invalid: {message}',
        {
            "name": name,
            **({"group": kind.group} if kind.group else {}),
            "kind": kind.kind,
            "causes": [
                {
                    "reason": _CAUSES[wrong.kind],
                    "message": f"{wrong.kind}{': ' if wrong.told else ''}{wrong.told}",
                    "field": wrong.field,
                }
                for wrong in wrongs
            ],
        },
    )


def expired(since: int, oldest: int) -> Expired:
    return Expired(410, "Expired", f"too old resource version: {since} ({oldest})")
