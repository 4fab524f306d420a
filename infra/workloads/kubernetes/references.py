"""Objects that a pod refers to: whether they exist, and which of their texts are secret."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.errors import BadInputError, NotFoundError
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.workloads.base import Workload
from infra.workloads.claims import check_name

_FORBIDDEN = {"Forbidden"}


@dataclass(frozen=True)
class _NamedObject:
    kind: str
    name: str
    key: str = ""
    optional: bool = False


@dataclass(frozen=True)
class _ObjectKind:
    """Words and error code of a kind."""

    words: str
    missing: str
    remedy: str


_KINDS = {
    "Secret": _ObjectKind("secret", "SecretMissing", "Make it with kubectl create secret."),
    "ConfigMap": _ObjectKind(
        "config map", "ConfigMapMissing", "Make it with kubectl create configmap."
    ),
    "PersistentVolumeClaim": _ObjectKind(
        "claim", "ClaimMissing", "Create it in the pipeline with kubernetes.CreatePVC."
    ),
}


@dataclass(frozen=True)
class References:
    """Objects that a pod refers to.

    Attributes:
        secrets: Texts to hide in logs and errors.
        notices: What could not be read, for people.
    """

    secrets: frozenset[str]
    notices: tuple[str, ...]


def check(workload: Workload, api: Api) -> References:
    """Check the objects that a pod refers to. Each is read once.

    Raises:
        NotFoundError: ``SecretMissing``, ``ConfigMapMissing`` or ``ClaimMissing``.
        BadInputError: ``ConfigMapNotText`` for a variable that would be no text, or
            ``ClaimInvalid``.
        ClusterError: If the cluster does not answer.
    """
    held: dict[tuple[str, str], Mapping[str, Any] | None] = {}
    notes: dict[str, None] = {}
    secrets: set[str] = set()
    for wanted in _wanted(workload):
        place = (wanted.kind, wanted.name)
        try:
            if place not in held:
                held[place] = api.read(*place)
        except ClusterError as error:
            if error.code not in _FORBIDDEN:
                raise
            notes[_note(wanted)] = None
            continue
        _check(wanted, held[place], api.namespace)
    for (kind, _), found in held.items():
        if kind == "Secret" and found is not None:
            secrets.update(_texts(found))
    return References(frozenset(secrets), tuple(notes))


def _note(wanted: _NamedObject) -> str:
    what = f"the {_KINDS[wanted.kind].words} {wanted.name}"
    if wanted.kind == "Secret":
        return f"This run may not read {what}, so it is not hidden in the log."
    return f"This run may not read {what}, and assumes that it exists."


def _wanted(workload: Workload) -> Iterator[_NamedObject]:
    pod = workload.kubernetes
    for one in pod.get("env", ()):
        source = one["valueFrom"]
        for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if reference := source.get(field):
                optional = bool(reference.get("optional"))
                yield _NamedObject(kind, reference["name"], reference["key"], optional)
    for one in pod.get("volumes", ()):
        if source := one.get("secret"):
            yield _NamedObject("Secret", source["secretName"], "", bool(source.get("optional")))
        if source := one.get("configMap"):
            yield _NamedObject("ConfigMap", source["name"], "", bool(source.get("optional")))
        if source := one.get("persistentVolumeClaim"):
            check_name(source["claimName"])
            yield _NamedObject("PersistentVolumeClaim", source["claimName"])


def _check(wanted: _NamedObject, found: Mapping[str, Any] | None, namespace: str) -> None:
    kind = _KINDS[wanted.kind]
    if found is None:
        if wanted.optional:
            return
        raise NotFoundError(
            f"There is no {kind.words} {wanted.name[:300]} in the namespace {namespace}.",
            kind.remedy,
            code=kind.missing,
        )
    if not wanted.key or wanted.key in (found.get("data") or {}) or wanted.optional:
        return
    if wanted.key in (found.get("binaryData") or {}):
        raise BadInputError(
            f"The key {wanted.key} of the config map {wanted.name} is not UTF-8, and cannot be a "
            "variable.",
            "Mount it as a volume.",
            code="ConfigMapNotText",
        )
    raise NotFoundError(
        f"The {kind.words} {wanted.name} has no key {wanted.key}.", "Add it.", code=kind.missing
    )


def _texts(secret: Mapping[str, Any]) -> Iterator[str]:
    for value in (secret.get("data") or {}).values():
        try:
            yield base64.b64decode(value).decode()
        except (binascii.Error, UnicodeDecodeError):  # no text, so no line holds it
            continue
