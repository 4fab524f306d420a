"""Parts of a pod on one machine: each is honoured, named in a notice, or refused."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import socket
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import BadInputError, NotFoundError
from infra.kubernetes import quantities
from infra.storage import store
from infra.workloads.base import Workload
from infra.workloads.local_objects import LocalObjects, key_of
from infra.workloads.mounts import Mount

SHARED_MEMORY = "/dev/shm"  # noqa: S108 (a mount point, which is always there)
_VOLUMES = ".modelyard-volumes"
_MEANINGLESS = {
    "nodeSelector": "node selectors",
    "tolerations": "tolerations",
    "affinity": "affinities",
    "imagePullSecrets": "image pull secrets",
    "imagePullPolicy": "the image pull policy",
    "metadata": "labels and annotations of pods",
    "securityContext": "the security context",
}
_OF_METADATA = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class LocalPodSettings:
    """Parts of a pod, as far as one machine has them.

    Attributes:
        environment: Variables, secrets among them.
        mounts: Mounts.
        notices: What is not honoured, for people.
        seconds: The workload's time limit, or the pod's if that is shorter; None for none.
        secrets: Texts to hide in logs and errors.
    """

    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    notices: tuple[str, ...]
    seconds: float | None
    secrets: frozenset[str]


def mount_paths(workload: Workload) -> list[str]:
    """Where something is to be mounted."""
    wanted = (one["mountPath"] for one in workload.kubernetes.get("volumeMounts", ()))
    return [*workload.folders, *(path for path in wanted if path != SHARED_MEMORY)]


def check(workload: Workload) -> None:
    """Refuse settings without which the workload cannot work, and which only a cluster has.

    Raises:
        BadInputError: With the code ``PlatformUnsupported``.
    """
    claims = [one["name"] for one in workload.kubernetes.get("resourceClaims", ())]
    if claims:
        raise BadInputError(
            f"{workload.name} asks for devices by the resource claim {', '.join(claims)}, which "
            "only a cluster has.",
            "Run it on a cluster, or ask for the machine's GPUs with set_accelerator_type.",
            code="PlatformUnsupported",
        )
    facts = _facts(workload)
    for one in workload.kubernetes.get("env", ()):
        reference = one["valueFrom"].get("fieldRef")
        if reference and _fact(workload, reference["fieldPath"], facts) is None:
            raise BadInputError(
                f"{workload.name} requests {reference['fieldPath']} in {one['name']}, which only "
                "a cluster has.",
                f"Run it on a cluster, or use one of {', '.join(facts)}.",
                code="PlatformUnsupported",
            )


@contextlib.contextmanager
def resolved(
    workload: Workload, objects: LocalObjects, honoured: Collection[str] = ()
) -> Iterator[LocalPodSettings]:
    """Resolve references; volumes that the workload has for itself are removed afterwards.

    Args:
        workload: The workload.
        objects: Secrets, config maps and claims.
        honoured: Parts of a pod that the backend itself sees to.

    Raises:
        BadInputError: As :func:`check` says, or for a claim that no volume can be of.
        NotFoundError: If a secret, config map or claim is missing that is not optional.
    """
    check(workload)
    try:
        yield _resolve(workload, objects, honoured)
    finally:
        _remove_volumes(workload)


def _resolve(
    workload: Workload, objects: LocalObjects, honoured: Collection[str]
) -> LocalPodSettings:
    pod = workload.kubernetes
    resolver = _Resolver(workload, objects)
    environment = resolver.environment()
    mounts = resolver.mounts()
    ignored = [
        words for key, words in _MEANINGLESS.items() if pod.get(key) and key not in honoured
    ]
    limits = [workload.seconds, pod.get("activeDeadlineSeconds")]
    return LocalPodSettings(
        environment,
        tuple(mounts),
        tuple(
            f"On this machine there is no use for {words}." for words in ignored + resolver.unused
        ),
        min((float(one) for one in limits if one is not None), default=None),
        resolver.secrets(),
    )


def _remove_volumes(workload: Workload) -> None:
    shutil.rmtree(workload.folder / _VOLUMES, ignore_errors=True)


def shared_memory(workload: Workload) -> int:
    """The bytes of shared memory that a workload asks for; 0 if it does not say."""
    for mount in workload.kubernetes.get("volumeMounts", ()):
        if mount["mountPath"] == SHARED_MEMORY:
            return _size(_volumes(workload)[mount["name"]].get("emptyDir", {}))
    return 0


class _Resolver:
    """The settings of one workload, with the secrets, config maps and claims that they name."""

    def __init__(self, workload: Workload, objects: LocalObjects) -> None:
        self.unused: list[str] = []
        self._workload = workload
        self._objects = objects
        self._secrets: dict[str, Mapping[str, str]] = {}

    def _secret(self, name: str) -> Mapping[str, str]:
        if name not in self._secrets:
            self._secrets[name] = self._objects.secret(name)
        return self._secrets[name]

    def secrets(self) -> frozenset[str]:
        """Every text of the secrets that have been read."""
        return frozenset(text for held in self._secrets.values() for text in held.values())

    def environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        facts = _facts(self._workload)
        for one in self._workload.kubernetes.get("env", ()):
            source = one["valueFrom"]
            try:
                value = self._value(source, facts)
            except NotFoundError:
                if not any(reference.get("optional") for reference in source.values()):
                    raise
            else:
                found[one["name"]] = value
        return found

    def _value(self, source: Mapping[str, Any], facts: Mapping[str, str]) -> str:
        if wanted := source.get("secretKeyRef"):
            held = self._secret(wanted["name"])
            return key_of("secret", wanted["name"], wanted["key"], held)
        if wanted := source.get("configMapKeyRef"):
            texts = {key: _text(wanted["name"], key, data)
                     for key, data in self._objects.config_map(wanted["name"]).items()
                     if key == wanted["key"]}  # fmt: skip
            return key_of("config map", wanted["name"], wanted["key"], texts)
        return str(_fact(self._workload, source["fieldRef"]["fieldPath"], facts))

    def mounts(self) -> list[Mount]:
        _remove_volumes(self._workload)  # of an attempt that was killed
        volumes = _volumes(self._workload)
        found = [Mount(path, _in_place(uri)) for path, uri in self._workload.folders.items()]
        for mount in self._workload.kubernetes.get("volumeMounts", ()):
            if mount["mountPath"] != SHARED_MEMORY:
                made = self._mount(volumes[mount["name"]], mount)
                if made is not None:
                    found.append(made)
        return found

    def _mount(self, volume: Mapping[str, Any], mount: Mapping[str, Any]) -> Mount | None:
        path = mount["mountPath"]
        if claim := volume.get("persistentVolumeClaim"):
            folder = self._objects.claims.path(claim["claimName"])
            return Mount(path, _within(folder, mount.get("subPath", ""), claim["claimName"]))
        if "secret" in volume or "configMap" in volume:
            return self._files(volume, path)
        empty = volume.get("emptyDir", {})
        if empty.get("medium") == "Memory":
            return Mount(path, memory=True, size=_size(empty))
        if empty.get("sizeLimit") or "ephemeral" in volume:
            self.unused.append(f"the size of the volume at {path}")
        folder = self._workload.folder / _VOLUMES / volume["name"]
        folder.mkdir(parents=True)
        folder.chmod(0o777)  # as a volume is, for every user
        return Mount(path, folder)

    def _files(self, volume: Mapping[str, Any], path: str) -> Mount | None:
        """A secret or a config map as files; None for an optional one that is not there."""
        source = volume.get("secret") or volume["configMap"]
        try:
            if "secret" in volume:
                held = self._secret(source["secretName"])
                files = {key: text.encode() for key, text in held.items() if _is_file(key)}
            else:
                files = dict(self._objects.config_map(source["name"]))
        except NotFoundError:
            if not source.get("optional"):
                raise
            # As on a cluster, the folder is there, and empty.
            files = {}
        return Mount(path, files=files)


def _in_place(uri: str) -> Path:
    """Where a folder of a storage is on this machine.

    Raises:
        BadInputError: With the code ``FolderElsewhere``.
    """
    found = store(uri).in_place()
    if found is None or not found.is_dir():
        raise BadInputError(
            f"{uri} is not a folder of this machine, so nothing can be mounted there.",
            "Give a nas:// URI of a folder that is there.",
            code="FolderElsewhere",
        )
    return found


def _volumes(workload: Workload) -> dict[str, Mapping[str, Any]]:
    return {one["name"]: one for one in workload.kubernetes.get("volumes", ())}


def _size(empty: Mapping[str, Any]) -> int:
    limit = empty.get("sizeLimit")
    return int(quantities.parse_quantity(limit)) if limit else 0


def _is_file(key: str) -> bool:
    return "/" not in key and "\0" not in key and key not in {"", ".", ".."}


def _text(name: str, key: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadInputError(
            f"The key {key} of the config map {name} is not UTF-8, and cannot be a variable.",
            "Mount it as a volume.",
            code="ConfigMapNotText",
        ) from None


def _within(folder: Path, below: str, name: str) -> Path:
    """A folder in the volume of a claim, which is made if it is missing."""
    found = folder / below
    if not found.resolve().is_relative_to(folder.resolve()):
        raise BadInputError(
            f"{below} leads out of the claim {name} through a link.",
            "Give a path within it.",
            code="LinkPointsOutside",
        )
    found.mkdir(parents=True, exist_ok=True)
    return found


def _facts(workload: Workload) -> dict[str, str]:
    """What a pod would know of itself: made up, but stable for the task of the run."""
    identity = hashlib.sha256(str(workload.folder).encode()).hexdigest()
    plain = re.sub(r"[^a-z0-9]+", "-", workload.name.lower()).strip("-")[:50].strip("-")
    return {
        "metadata.name": f"{plain or 'task'}-{identity[:8]}",
        "metadata.namespace": "default",
        "metadata.uid": str(uuid.UUID(identity[:32])),
        "spec.nodeName": socket.gethostname(),
        "spec.serviceAccountName": "default",
        "status.hostIP": _LOOPBACK,
        "status.podIP": _LOOPBACK,
    }


def _fact(workload: Workload, path: str, facts: Mapping[str, str]) -> str | None:
    """What a field of a pod says; None for one that only a cluster has."""
    if found := _OF_METADATA.fullmatch(path):
        return str(workload.kubernetes.get("metadata", {}).get(found[1], {}).get(found[2], ""))
    return facts.get(path)
