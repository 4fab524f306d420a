"""What an API server's refusals mean.

An API server refuses with a ``Status`` object: a word for the reason, a sentence, details. They
are told here in words of ours, with what was asked, where, and how to mend it. The reasons are
those of the package ``k8s.io/apimachinery/pkg/api/errors``; admission plugins tell themselves
apart only by their sentences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.errors import ModelyardError

_LONGEST_MESSAGE = 2000
_MOST_CAUSES = 10

# Reasons and statuses for which the same request may well be taken a little later.
RETRIED = frozenset({429, 500, 502, 503, 504})


class ClusterError(ModelyardError):
    """A cluster cannot be reached, or refuses what was asked of it.

    Attributes:
        transient: Whether the same may succeed in a moment with nothing mended.
        later: Whether it will when others have ended.
        status: The HTTP status of the answer; 0 if there was none.
    """

    code = "Cluster"

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        code: str | None = None,
        transient: bool = False,
        later: bool = False,
        status: int = 0,
    ) -> None:
        super().__init__(message, hint, code=code)
        self.transient = transient
        self.later = later
        self.status = status


@dataclass(frozen=True)
class Asked:
    """What was asked of an API server, for sentences about it."""

    verb: str
    resource: str
    name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        named = f" {self.name}" if self.name else ""
        where = f" in the namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{named}{where}"


@dataclass(frozen=True)
class _Meaning:
    code: str
    hint: str


_FORBIDDEN = _Meaning(
    "Forbidden",
    "Let a role of the account allow {verb} of {resource}; modelyard doctor shows all that is "
    "needed.",
)
_UNAUTHORIZED = _Meaning(
    "Unauthorized",
    "The credentials are missing, expired or of another cluster: log in again, or name another "
    "context in the cluster file.",
)
_NAMESPACE_MISSING = _Meaning(
    "NamespaceMissing",
    "Make it (kubectl create namespace {namespace}), or name another in the cluster file.",
)
_QUOTA = _Meaning(
    "QuotaExceeded", "Ask for less, wait until other runs have ended, or raise the quota."
)
_LIMITS = _Meaning(
    "QuotaExceeded", "Ask for what the namespace's LimitRange allows, or change that."
)
_MANIFEST = _Meaning("ManifestRefused", "Mend what the message names in the cluster file or run.")
_ADMISSION = _Meaning(
    "ManifestRefused",
    "A rule of this cluster does not admit it: mend what the message names, or ask whoever keeps "
    "the cluster.",
)
_CONFLICT = _Meaning("Conflict", "Somebody else made or changed it in between: look again.")
_GONE = _Meaning("Gone", "What was referred to is no longer kept: read it anew.")
_UNREACHABLE = _Meaning(
    "ApiUnreachable", "Try again later; if it lasts, look after the cluster's control plane."
)
_KIND_UNKNOWN = _Meaning(
    "KindUnknown",
    "Either the address in the kubeconfig is not that of an API server, or the server is too old "
    "for it or has it switched off.",
)
_OTHER = _Meaning("Cluster", "")

# (status, what the sentence says, meaning): the first that fits. Admission plugins answer 403 like
# the authorizer does; the authorizer's sentences alone have: User "..." cannot.
_MEANINGS: tuple[tuple[int, re.Pattern[str], _Meaning], ...] = tuple(
    (status, re.compile(pattern), meaning)
    for status, pattern, meaning in (
        (401, "", _UNAUTHORIZED),
        (403, r"system:anonymous", _UNAUTHORIZED),
        (403, r"exceeded quota", _QUOTA),
        (403, r"status unknown for quota", _UNREACHABLE),  # it was made just now
        (403, r"(?:maximum|minimum) \S+ (?:usage|limit to request ratio|storage)", _LIMITS),
        (403, r"because it is being terminated", _NAMESPACE_MISSING),
        (403, r"cannot \S+ resource|cannot \S+ path", _FORBIDDEN),
        (403, r" is forbidden: |denied the request", _ADMISSION),
        (403, "", _FORBIDDEN),
        (404, r'^namespaces "[^"]*" not found', _NAMESPACE_MISSING),
        (404, r"could not find the requested resource", _KIND_UNKNOWN),
        (405, "", _KIND_UNKNOWN),
        (409, r"cannot be fulfilled on resourcequotas", _UNREACHABLE),  # two at once: once more
        (409, "", _CONFLICT),
        (410, "", _GONE),
        (400, "denied the request", _ADMISSION),
        *((status, "", _MANIFEST) for status in (400, 413, 415, 422)),
        *((status, "", _UNREACHABLE) for status in sorted(RETRIED)),
    )
)


def status_of(body: bytes) -> dict[str, Any]:
    """The ``Status`` object in an answer's body; empty if there is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def refusal(asked: Asked, http_status: int, body: bytes) -> ClusterError:
    """The error for an answer that is a refusal.

    Args:
        asked: What was asked.
        http_status: The answer's status, 300 or more.
        body: The answer's body; a ``Status`` object, or whatever a proxy wrote.
    """
    status = status_of(body)
    said = str(status.get("message") or "").strip()
    meaning = _meaning(http_status, said)
    if http_status == 404 and not status:  # a path that the server does not serve
        meaning = _KIND_UNKNOWN
    sentence = f"The cluster did not {asked}: {_told(said, status) or f'HTTP {http_status}'}"
    return ClusterError(
        sentence if sentence.endswith(".") else f"{sentence}.",
        meaning.hint.format(
            verb=asked.verb, resource=asked.resource, namespace=asked.namespace or "NAME"
        ),
        code=meaning.code,
        transient=meaning is _UNREACHABLE,
        later=meaning is _QUOTA,
        status=http_status,
    )


def _meaning(http_status: int, said: str) -> _Meaning:
    for wanted, pattern, meaning in _MEANINGS:
        if wanted == http_status and pattern.search(said):
            return meaning
    return _OTHER


def _told(said: str, status: Mapping[str, Any]) -> str:
    """The server's sentence; the causes of it that it does not tell itself follow."""
    causes = (status.get("details") or {}).get("causes") or []
    missing = [
        f"{cause.get('field')}: {cause.get('message')}"
        for cause in causes
        if cause.get("field") and str(cause.get("message")) not in said
    ]
    told = "; ".join([said, *missing[:_MOST_CAUSES]]) if said else "; ".join(missing)
    return told if len(told) <= _LONGEST_MESSAGE else f"{told[:_LONGEST_MESSAGE]}..."


def unreachable(asked: Asked, server: str, reason: str) -> ClusterError:
    """The error for a server that gave no answer, or none that makes sense."""
    return ClusterError(
        f"The API server {server} gave no answer to: {asked} ({reason}).",
        "Look whether the address in the kubeconfig is right and the cluster runs.",
        code="ApiUnreachable",
        transient=True,
    )


def untrusted(asked: Asked, server: str, reason: str) -> ClusterError:
    """The error for a server that this machine does not trust, or that does not trust it."""
    return ClusterError(
        f"There is no trusted connection to the API server {server} to {asked}: {reason}.",
        "Look after certificate-authority, client-certificate and client-key in the kubeconfig.",
        code="CertificateInvalid",
    )


def no_kubeconfig(message: str, hint: str) -> ClusterError:
    """The error for a kubeconfig that is not there or cannot be used."""
    return ClusterError(message, hint, code="KubeconfigMissing")
