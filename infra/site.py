"""Validation of a request for the machine on which its run will be.

A run for a cluster is validated by its submitter first. GPUs, disk space and folders of the
submitter's machine say nothing about the cluster's machines, so checks of these are skipped. The
run's own process repeats the whole validation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import TypeVar

from infra import settings, storage
from infra.errors import BadInputError, ModelyardError, naming
from infra.storage import Store

T = TypeVar("T")

POD_VARIABLE = "MODELYARD_POD_UID"
NODES_VARIABLE = "MODELYARD_NODES"  # in a pod: how many of them its run has
MOUNTS = PurePosixPath("/nas")  # where a cluster's machines have the folder of a NAS, by its id
_NAS = re.compile(r"nas://([^/:@]+)(?::(/.*)?)?", re.DOTALL | re.IGNORECASE)

# Errors that are about this machine and its access to object storage, not about the request.
_OF_THIS_MACHINE = frozenset(
    {"StoreUnreachable", "TransferBroken", "CertificateWrong", "ClockWrong", "CredentialsMissing",
     "CredentialsWrong", "AccessDenied", "NasUnknown", "NasNotMounted"}
)  # fmt: skip

_for_remote: ContextVar[bool] = ContextVar("the run is for other machines", default=False)


@contextmanager
def validating_for_remote() -> Iterator[None]:
    """Validate for another machine within the context."""
    token = _for_remote.set(True)
    try:
        yield
    finally:
        _for_remote.reset(token)


def is_validating_for_remote() -> bool:
    """Whether the current validation is for another machine."""
    return _for_remote.get()


def in_pod(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is in a pod of a cluster, whose image is the requested one."""
    return bool(environment.get(POD_VARIABLE))


def has_several_pods(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several pods, the nodes of its run."""
    found = environment.get(NODES_VARIABLE, "")
    return found.isdecimal() and int(found) > 1


def nas_id(uri: str) -> str:
    """Return the id of the NAS of a URI, or of a path in a pod; else ""."""
    match = _NAS.fullmatch(uri)
    if match:
        return match[1]
    path = storage.local_path(uri)
    if path is None or ".." in path.parts or not path.is_relative_to(MOUNTS):
        return ""
    return next(iter(path.relative_to(MOUNTS).parts), "")


def inspect_store(parameter: str, uri: str, question: Callable[[Store], T]) -> T | None:
    """Inspect the store of a parameter's URI; None if only the run's machine can access it.

    Args:
        parameter: The parameter, for messages, such as ``algorithm.uri``.
        uri: Its value.
        question: Asks the store.

    Raises:
        BadInputError: With the code ``PathNotShared`` if no machine of the run can access it;
            and if the URI is invalid.
        ModelyardError: An error of the inspection.
    """
    with naming(parameter):
        return _answer(uri, question)


def _answer(uri: str, question: Callable[[Store], T]) -> T | None:
    if not is_validating_for_remote():
        return question(storage.store(uri))
    path = storage.local_path(uri)
    if path is not None:
        if nas_id(uri):
            return None
        raise not_shared(uri, path)
    try:
        return question(storage.store(uri))
    except ModelyardError as error:
        if error.code in _OF_THIS_MACHINE:
            return None
        raise


def not_shared(uri: str, path: Path) -> BadInputError:
    """Build the error for a path of this machine in a run on a cluster."""
    for known, folder in settings.load().nas.items():
        mount = folder.expanduser().absolute()
        if path.is_relative_to(mount):
            below = path.relative_to(mount)
            return BadInputError(
                f"{uri} is a path of this machine: the cluster's machines cannot access it.",
                f"It lies on the NAS {known}: write nas://{known}:/{below}.",
                code="PathNotShared",
            )
    return BadInputError(
        f"{uri} is a path of this machine: the cluster's machines cannot access it.",
        "Put it where they can: s3://bucket/key, obs://endpoint/container/path or nas://ID:/path.",
        code="PathNotShared",
    )
