"""On which machine a run will be: what this one can tell of it beforehand, and what it cannot.

Whoever submits a run to a cluster checks it first, and the cluster's machines are others: what
this one has of GPUs, room and folders says nothing of them. A check asks here what it may know.
In the run's own process everything is checked again, where it is.
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
from infra.errors import BadInputError, ModelyardError
from infra.storage import Store

T = TypeVar("T")

POD_VARIABLE = "MODELYARD_POD_UID"
NODES_VARIABLE = "MODELYARD_NODES"  # in a pod: how many of them its run has
MOUNTS = PurePosixPath("/nas")  # where a cluster's machines have the folder of a NAS, by its id
_NAS = re.compile(r"nas://([^/:@]+)(?::(/.*)?)?", re.DOTALL | re.IGNORECASE)

# What tells of this machine and its way to object storage, not of what was asked for.
_OF_THIS_MACHINE = frozenset(
    {"StoreUnreachable", "TransferBroken", "CertificateWrong", "ClockWrong", "CredentialsMissing",
     "CredentialsWrong", "AccessDenied", "NasUnknown", "NasNotMounted"}
)  # fmt: skip

_elsewhere: ContextVar[bool] = ContextVar("the run is for other machines", default=False)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Check, for the while, what runs on machines that this one is not."""
    token = _elsewhere.set(True)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def is_elsewhere() -> bool:
    """Whether what is checked now runs on other machines."""
    return _elsewhere.get()


def in_pod(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is a cluster's pod, so that its image is the one that was asked for."""
    return bool(environment.get(POD_VARIABLE))


def nodes_apart(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the nodes of the run of this process are machines of their own, and this is one."""
    found = environment.get(NODES_VARIABLE, "")
    return found.isdecimal() and int(found) > 1


def nas_id(uri: str) -> str:
    """The id of the NAS that a URI, or a path as a cluster's machines have it, is on; else ""."""
    match = _NAS.fullmatch(uri)
    if match:
        return match[1]
    path = storage.local_path(uri)
    if path is None or ".." in path.parts or not path.is_relative_to(MOUNTS):
        return ""
    return next(iter(path.relative_to(MOUNTS).parts), "")


def ask(uri: str, question: Callable[[Store], T]) -> T | None:
    """The answer to a question about what is at ``uri``; None if only the run's machine has it.

    Raises:
        BadInputError: With the code ``PathNotShared`` if no machine of the run can see it; and
            if the URI is wrong.
        ModelyardError: What the question raises.
    """
    if not is_elsewhere():
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
    """The refusal of a path of this machine."""
    for known, folder in settings.load().nas.items():
        mount = folder.expanduser().absolute()
        if path.is_relative_to(mount):
            below = path.relative_to(mount)
            return BadInputError(
                f"{uri} is a path of this machine: the cluster's machines do not see it.",
                f"It lies on the NAS {known}: write nas://{known}:/{below}.",
                code="PathNotShared",
            )
    return BadInputError(
        f"{uri} is a path of this machine: the cluster's machines do not see it.",
        "Put it where they do: s3://bucket/key, obs://endpoint/container/path or nas://ID:/path.",
        code="PathNotShared",
    )
