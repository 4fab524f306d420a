"""The addresses of pods and nodes, and the names that pods find each other by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

_SUFFIX = "cluster.local"


class Addresses:
    """Loopback addresses: one for each node and pod, in a range of this process's own."""

    def __init__(self) -> None:
        self._range = 1 + os.getpid() % 250
        self._next = 0
        self._named: dict[tuple[str, str], str] = {}

    def fresh(self) -> str:
        self._next += 1
        number = self._next
        return f"127.{self._range}.{1 + number // 250}.{1 + number % 250}"

    def of_pod(self, pod: Mapping[str, Any]) -> str:
        """A pod's address; who follows it under the same name has the same one."""
        name = pod["spec"].get("hostname"), pod["spec"].get("subdomain")
        if not all(name):
            return self.fresh()
        key = (pod["metadata"]["namespace"], ".".join(name))
        if key not in self._named:
            self._named[key] = self.fresh()
        return self._named[key]


def _ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _behind(service: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    wanted = service["spec"].get("selector") or {}
    meta, status = pod["metadata"], pod.get("status") or {}
    if not wanted or meta["namespace"] != service["metadata"]["namespace"]:
        return False
    labels = meta.get("labels") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    if not status.get("podIP") or status.get("phase") in ("Succeeded", "Failed"):
        return False
    return bool(service["spec"].get("publishNotReadyAddresses")) or _ready(pod)


def entries(
    services: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    """(address, name below the namespace, namespace) of all that the cluster's DNS knows.

    A service is found by the addresses of its pods, since nothing forwards connections here.
    """
    found, there = [], list(pods)
    for service in services:
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        for pod in there:
            if not _behind(service, pod):
                continue
            address = pod["status"]["podIP"]
            if pod["spec"].get("subdomain") == name and pod["spec"].get("hostname"):
                found.append((address, f"{pod['spec']['hostname']}.{name}", namespace))
            found.append((address, name, namespace))
    return found


def hosts(
    pod: Mapping[str, Any], address: str, hostname: str, known: Iterable[tuple[str, str, str]]
) -> str:
    """The text of a pod's ``/etc/hosts``, which stands for the cluster's DNS too."""
    namespace, subdomain = pod["metadata"]["namespace"], pod["spec"].get("subdomain")
    own = f"{hostname}.{subdomain}.{namespace}.svc.{_SUFFIX}\t" if subdomain else ""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost", f"{address}\t{own}{hostname}"]
    for there, name, where in known:
        names = [f"{name}.{where}.svc.{_SUFFIX}", f"{name}.{where}.svc", f"{name}.{where}"]
        if where == namespace:
            names.append(name)
        lines.append(f"{there}\t{' '.join(names)}")
    lines += [
        f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}"
        for alias in pod["spec"].get("hostAliases") or []
    ]
    return "\n".join(lines) + "\n"
