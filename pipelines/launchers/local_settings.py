"""What the settings of Kubernetes mean on one machine: few things, each honoured or told.

The settings are parts of a pod, as :func:`pipelines.platform.resolve` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra import secrets
from infra.errors import BadInputError, NotFoundError
from pipelines.launchers.base import Job

# Reads a key of a secret.
Secret = Callable[[str, str], str]

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (a mount point, which is always there)
_MEANINGLESS = {
    "nodeSelector": "node selectors",
    "tolerations": "tolerations",
    "affinity": "affinities",
    "imagePullSecrets": "image pull secrets",
    "imagePullPolicy": "the image pull policy",
    "metadata": "labels and annotations of pods",
    "securityContext": "the security context",
}


@dataclass(frozen=True)
class Understood:
    """The settings as far as one machine can have them.

    Attributes:
        environment: Variables, secrets among them.
        notes: What is not honoured, for people.
        seconds: A time limit; None for none.
    """

    environment: Mapping[str, str]
    notes: tuple[str, ...]
    seconds: float | None


def from_store(name: str, key: str) -> str:
    """A key of a secret: of the JSON object that the Prefect Secret block ``name`` holds.

    Raises:
        NotFoundError: With the code ``SecretMissing``, also if it has no such key.
        ModelyardError: If it cannot be read.
    """
    text = secrets.resolve(f"{secrets.PREFIX}{name}")
    try:
        held = json.loads(text)
    except ValueError:
        held = None
    if not isinstance(held, dict) or not isinstance(held.get(key), str):
        raise NotFoundError(
            f"The secret {name} has no key {key}.",
            'Let its Prefect Secret block hold a JSON object such as {"KEY": "VALUE"}.',
            code="SecretMissing",
        )
    return str(held[key])


def check(job: Job) -> None:
    """Refuse settings without which the job cannot work, and which only a cluster has.

    Raises:
        BadInputError: With the code ``PlatformUnsupported``.
    """
    needed = [
        f"a config map's value in {one['name']}"
        for one in job.kubernetes.get("env", ())
        if "configMapKeyRef" in one["valueFrom"] and not _optional(one["valueFrom"])
    ]
    needed += [f"a mount at {path}" for path, optional in _mounts(job) if not optional]
    if needed:
        raise BadInputError(
            f"{job.name} needs {', '.join(needed)}, which only a cluster has.",
            "Run it on a cluster, or take the setting out of the pipeline.",
            code="PlatformUnsupported",
        )


def understand(job: Job, secret: Secret) -> Understood:
    """Read the settings that one machine can have.

    Raises:
        BadInputError: As :func:`check` says.
        NotFoundError: If a secret is missing that is not optional.
    """
    check(job)
    pod = job.kubernetes
    environment: dict[str, str] = {}
    ignored = [words for key, words in _MEANINGLESS.items() if pod.get(key)]
    for one in pod.get("env", ()):
        source = one["valueFrom"]
        wanted = source.get("secretKeyRef")
        if wanted is None:
            ignored.append(f"the variable {one['name']}")
            continue
        try:
            environment[one["name"]] = secret(wanted["name"], wanted["key"])
        except NotFoundError:
            if not _optional(source):
                raise
    ignored += [f"the optional mount at {path}" for path, optional in _mounts(job) if optional]
    seconds = pod.get("activeDeadlineSeconds")
    return Understood(
        environment,
        tuple(f"On this machine there is no use for {words}." for words in ignored),
        None if seconds is None else float(seconds),
    )


def _optional(source: Mapping[str, Any]) -> bool:
    return any(reference.get("optional") for reference in source.values())


def _mounts(job: Job) -> list[tuple[str, bool]]:
    """Where something is to be mounted, and whether the job can do without."""
    volumes = {one["name"]: one for one in job.kubernetes.get("volumes", ())}
    found = []
    for mount in job.kubernetes.get("volumeMounts", ()):
        volume = volumes.get(mount["name"], {})
        sources = [volume.get("secret"), volume.get("configMap")]
        optional = any(source.get("optional") for source in sources if source)
        if mount["mountPath"] != _SHARED_MEMORY:
            found.append((mount["mountPath"], optional))
    return found
