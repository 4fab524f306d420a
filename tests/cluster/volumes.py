"""A pod's volumes as folders of this machine, and where its containers see them."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.environment import Facts, Lookup, expand, field_value, resource_value
from tests.cluster.quantities import whole

SHARED_MEMORY = 64 << 20
"""Bytes of ``/dev/shm`` where no volume is mounted there: what containerd gives."""
Files = dict[str, tuple[bytes, int]]


class MountError(Exception):
    """A volume cannot be had yet: the kubelet's message. It tries again."""


@dataclass
class Volumes:
    """What has been made of a pod's volumes."""

    sources: dict[str, Path] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    """Folders that become memory, with their size in bytes; 0 is as much as there is."""
    counted: dict[str, Path] = field(default_factory=dict)
    """What counts as the pod's own storage."""
    readonly: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Outside:
    """What volumes are made of that is not the pod's own."""

    look_up: Lookup
    shares: Mapping[str, Path]
    """Folders of NFS servers, by ``server:path``."""
    claim: Callable[[str], Path | None]
    """The folder of a bound claim of the pod's namespace; None where it is not bound."""
    host_paths: bool = False
    """Whether pods may have folders of this machine by their own paths."""


def _bytes_of(kind: str, found: Mapping) -> dict[str, bytes]:
    binary = found.get("data" if kind == "Secret" else "binaryData") or {}
    texts = {} if kind == "Secret" else found.get("data") or {}
    return {
        **{name: text.encode() for name, text in texts.items()},
        **{name: base64.b64decode(text) for name, text in binary.items()},
    }


def _of_object(kind: str, name: str, source: Mapping, mode: int, look_up: Lookup) -> Files:
    found = look_up(kind, name)
    if found is None:
        if source.get("optional"):
            return {}
        raise MountError(f'{kind.lower()} "{name}" not found')
    data = _bytes_of(kind, found)
    items = source.get("items")
    if items is None:
        return {key: (content, mode) for key, content in data.items()}
    made: Files = {}
    for item in items:
        if item["key"] in data:
            made[item["path"]] = (data[item["key"]], item.get("mode", mode))
        elif not source.get("optional"):
            raise MountError(f"references non-existent {kind.lower()} key: {item['key']}")
    return made


def _downward(pod: Mapping, source: Mapping, mode: int, facts: Facts) -> Files:
    made: Files = {}
    for item in source.get("items") or []:
        if "fieldRef" in item:
            text = field_value(pod, item["fieldRef"]["fieldPath"], facts)
        else:
            text = resource_value(pod, item["resourceFieldRef"], {}, facts)
        made[item["path"]] = (text.encode(), item.get("mode", mode))
    return made


def _projected(pod: Mapping, source: Mapping, facts: Facts, look_up: Lookup) -> Files:
    made: Files = {}
    mode = source.get("defaultMode", 0o644)
    for one in source.get("sources") or []:
        if "configMap" in one:
            part = one["configMap"]
            made |= _of_object("ConfigMap", part["name"], part, mode, look_up)
        elif "secret" in one:
            made |= _of_object("Secret", one["secret"]["name"], one["secret"], mode, look_up)
        elif "downwardAPI" in one:
            made |= _downward(pod, one["downwardAPI"], mode, facts)
        else:
            raise MountError(f"a projected source of {', '.join(one)} is not served here")
    return made


def _write(folder: Path, files: Files) -> None:
    for name, (content, mode) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)


class _Maker:
    """Makes one pod's volumes below a folder."""

    def __init__(self, pod: Mapping, folder: Path, facts: Facts, outside: Outside) -> None:
        self.pod, self.folder, self.facts, self.outside = pod, folder, facts, outside
        self.made = Volumes()

    def make(self, volume: Mapping) -> None:
        name = volume["name"]
        kind = next((one for one in volume if one != "name"), "emptyDir")
        maker = getattr(self, f"_{kind}", None)
        if maker is None:
            raise MountError(f"volumes of the kind {kind} are not served here")
        self.made.sources[name] = maker(name, volume.get(kind) or {})

    def _own(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _files(self, name: str, files: Files) -> Path:
        place = self._own(name)
        _write(place, files)
        self.made.readonly.add(name)
        return place

    def _emptyDir(self, name: str, source: Mapping) -> Path:
        place = self._own(name)
        place.chmod(0o1777)
        if source.get("medium") == "Memory":
            self.made.memory[str(place)] = whole(source.get("sizeLimit") or 0)
        else:
            self.made.counted[name] = place
        return place

    def _configMap(self, name: str, source: Mapping) -> Path:
        mode = source.get("defaultMode", 0o644)
        found = _of_object("ConfigMap", source["name"], source, mode, self.outside.look_up)
        return self._files(name, found)

    def _secret(self, name: str, source: Mapping) -> Path:
        mode = source.get("defaultMode", 0o644)
        found = _of_object("Secret", source["secretName"], source, mode, self.outside.look_up)
        return self._files(name, found)

    def _downwardAPI(self, name: str, source: Mapping) -> Path:
        mode = source.get("defaultMode", 0o644)
        return self._files(name, _downward(self.pod, source, mode, self.facts))

    def _projected(self, name: str, source: Mapping) -> Path:
        found = _projected(self.pod, source, self.facts, self.outside.look_up)
        return self._files(name, found)

    def _persistentVolumeClaim(self, name: str, source: Mapping) -> Path:
        place = self.outside.claim(source["claimName"])
        if place is None:
            raise MountError(f"claim {source['claimName']} is not bound")
        if source.get("readOnly"):
            self.made.readonly.add(name)
        return place

    def _ephemeral(self, name: str, source: Mapping) -> Path:
        claim = f"{self.pod['metadata']['name']}-{name}"
        return self._persistentVolumeClaim(name, {"claimName": claim})

    def _nfs(self, name: str, source: Mapping) -> Path:
        exported = f"{source['server']}:{source['path']}"
        if exported not in self.outside.shares:
            raise MountError(
                f"MountVolume.SetUp failed: mount.nfs: {exported}: No such file or directory"
            )
        if source.get("readOnly"):
            self.made.readonly.add(name)
        return Path(self.outside.shares[exported])

    def _hostPath(self, name: str, source: Mapping) -> Path:
        place = Path(source["path"])
        if not self.outside.host_paths or not place.exists():
            raise MountError(f"hostPath type check failed: {place} is not a directory")
        return place


def make(pod: Mapping, folder: Path, facts: Facts, outside: Outside) -> Volumes:
    """All volumes of a pod.

    Raises:
        MountError: One of them is not to be had; what was made may be made again.
    """
    maker = _Maker(pod, folder, facts, outside)
    for volume in pod["spec"].get("volumes") or []:
        try:
            maker.make(volume)
        except MountError as error:
            message = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}'
            raise MountError(message) from None
    return maker.made


def mounts(container: Mapping, volumes: Volumes, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Where a container sees the pod's volumes."""
    made = []
    for one in container.get("volumeMounts") or []:
        source = volumes.sources[one["name"]]
        below = one.get("subPath") or expand(one.get("subPathExpr") or "", env)
        if below:
            source = source / below
            if not source.exists():
                source.mkdir(parents=True)
        readonly = bool(one.get("readOnly")) or one["name"] in volumes.readonly
        made.append({"path": one["mountPath"], "source": str(source), "readonly": readonly})
    return made


def used(folder: Path) -> int:
    """Bytes on the disk below a folder."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    for parent, folders, files in os.walk(folder):  # which passes over what was just removed
        for name in (*folders, *files):
            try:
                found = Path(parent, name).lstat()
            except OSError:
                continue
            yield min(found.st_size, found.st_blocks * 512)


def clear(folder: Path) -> None:
    """Remove what a pod had."""
    shutil.rmtree(folder, ignore_errors=True)
