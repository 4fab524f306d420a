"""Errors of a Kubernetes API server.

An API server refuses with a ``Status`` object: a reason, a message, details. This module maps
it to a :class:`ClusterError` with the operation, a code and a hint. The reasons are those of
the package ``k8s.io/apimachinery/pkg/api/errors``; admission plugins can be distinguished only
by their messages.
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

# Statuses for which a repeated request may succeed.
RETRIED = frozenset({429, 500, 502, 503, 504})


class ClusterError(ModelyardError):
    """A cluster cannot be reached, or refuses a request.

    Attributes:
        transient: Whether a repeat may succeed in a moment with nothing fixed.
        later: Whether it will succeed once other runs have ended.
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
class ApiOperation:
    """An operation on an API server, for messages."""

    verb: str
    resource: str
    name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        named = f" {self.name}" if self.name else ""
        where = f" in the namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{named}{where}"


@dataclass(frozen=True)
class _ErrorKind:
    code: str
    hint: str


_FORBIDDEN = _ErrorKind(
    "Forbidden",
    "Let a role of the account allow {verb} of {resource}; modelyard doctor shows all that is "
    "needed.",
)
_UNAUTHORIZED = _ErrorKind(
    "Unauthorized",
    "The credentials are missing, expired or of another cluster: log in again, or name another "
    "context in the cluster file.",
)
_NAMESPACE_MISSING = _ErrorKind(
    "NamespaceMissing",
    "Create it (kubectl create namespace {namespace}), or name another in the cluster file.",
)
_QUOTA = _ErrorKind(
    "QuotaExceeded", "Ask for less, wait until other runs have ended, or raise the quota."
)
_LIMITS = _ErrorKind(
    "QuotaExceeded", "Ask for what the namespace's LimitRange allows, or change that."
)
_MANIFEST = _ErrorKind(
    "ManifestRefused", "Fix the fields that the message names in the cluster file or the run."
)
_ADMISSION = _ErrorKind(
    "ManifestRefused",
    "An admission rule of this cluster refuses it: fix what the message names, or ask the "
    "cluster's administrator.",
)
_CONFLICT = _ErrorKind(
    "Conflict", "Another client created or changed it in between: repeat the command."
)
_GONE = _ErrorKind("Gone", "The server no longer has that version of it: repeat the command.")
_UNREACHABLE = _ErrorKind(
    "ApiUnreachable", "Try again later; if it persists, check the cluster's control plane."
)
_KIND_UNKNOWN = _ErrorKind(
    "KindUnknown",
    "Either the address in the kubeconfig is not that of an API server, or the server is too old "
    "for it or has it switched off.",
)
_OTHER = _ErrorKind(
    "Cluster", "Fix what the message names, or ask the cluster's administrator; then repeat it."
)

# (status, pattern of the message, kind): the first match counts. Admission plugins answer 403, as
# the authorizer does; only the authorizer's messages have: User "..." cannot.
_ERROR_KINDS: tuple[tuple[int, re.Pattern[str], _ErrorKind], ...] = tuple(
    (status, re.compile(pattern), kind)
    for status, pattern, kind in (
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
    """Parse the ``Status`` object in a response's body; empty if there is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def from_response(operation: ApiOperation, http_status: int, body: bytes) -> ClusterError:
    """Build the error for a response with an error status.

    Args:
        operation: The operation that was requested.
        http_status: The response's status, 300 or more.
        body: The response's body; a ``Status`` object, or a proxy's page.
    """
    status = status_of(body)
    said = str(status.get("message") or "").strip()
    kind = _classify(http_status, said)
    if http_status == 404 and not status:  # a path that the server does not serve
        kind = _KIND_UNKNOWN
    causes = _describe_causes(said, status) or f"HTTP {http_status}"
    sentence = f"The cluster did not {operation}: {causes}"
    return ClusterError(
        sentence if sentence.endswith(".") else f"{sentence}.",
        kind.hint.format(
            verb=operation.verb,
            resource=operation.resource,
            namespace=operation.namespace or "NAME",
        ),
        code=kind.code,
        transient=kind is _UNREACHABLE,
        later=kind is _QUOTA,
        status=http_status,
    )


def _classify(http_status: int, said: str) -> _ErrorKind:
    for code, pattern, kind in _ERROR_KINDS:
        if code == http_status and pattern.search(said):
            return kind
    return _OTHER


def _describe_causes(said: str, status: Mapping[str, Any]) -> str:
    """Return the server's message, and the causes that it does not mention itself."""
    causes = (status.get("details") or {}).get("causes") or []
    missing = [
        f"{cause.get('field')}: {cause.get('message')}"
        for cause in causes
        if cause.get("field") and str(cause.get("message")) not in said
    ]
    text = "; ".join([said, *missing[:_MOST_CAUSES]]) if said else "; ".join(missing)
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def unreachable(operation: ApiOperation, server: str, reason: str) -> ClusterError:
    """Build the error for a server that gave no response, or no meaningful one."""
    return ClusterError(
        f"The API server {server} gave no answer to: {operation} ({reason}).",
        "Check that the address in the kubeconfig is right and that the cluster is running.",
        code="ApiUnreachable",
        transient=True,
    )


def untrusted(operation: ApiOperation, server: str, reason: str) -> ClusterError:
    """Build the error for a failed TLS handshake, on either side."""
    return ClusterError(
        f"There is no trusted connection to the API server {server} to {operation}: {reason}.",
        "Check certificate-authority, client-certificate and client-key in the kubeconfig.",
        code="CertificateInvalid",
    )


def no_kubeconfig(message: str, hint: str) -> ClusterError:
    """Build the error for a missing or unusable kubeconfig."""
    return ClusterError(message, hint, code="KubeconfigMissing")
