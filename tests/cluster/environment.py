"""The environment and the command of a container, as the kubelet makes them."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.cluster.quantities import whole

Lookup = Callable[[str, str], Mapping | None]
"""An object of the pod's namespace, by kind and name."""

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['([^']+)'\]")


class ConfigError(Exception):
    """What a container's environment refers to is not there."""


@dataclass(frozen=True)
class Facts:
    """What a pod is told of where it runs."""

    pod_ip: str
    host_ip: str
    node: str
    allocatable: Mapping[str, str]
    services: Mapping[str, str] = field(default_factory=dict)


def expand(text: str, known: Mapping[str, str]) -> str:
    """``$(NAME)`` by its value; as it is where nobody knows the name; ``$$`` is a dollar."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return known.get(found[1], found[0])

    return _REFERENCE.sub(value, text)


def field_value(pod: Mapping, path: str, facts: Facts) -> str:
    """What a field of the pod says, for a variable or a file."""
    meta, spec = pod["metadata"], pod["spec"]
    if one := _SUBSCRIPT.fullmatch(path):
        return (meta.get(one[1].removeprefix("metadata.")) or {}).get(one[2], "")
    if path in ("metadata.labels", "metadata.annotations"):
        whole_map = meta.get(path.removeprefix("metadata.")) or {}
        return "".join(f'{name}="{text}"\n' for name, text in sorted(whole_map.items()))
    simple = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in simple:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return simple[path]


def resource_value(pod: Mapping, reference: Mapping, container: Mapping, facts: Facts) -> str:
    """A container's own limit or request; the node's where it has none."""
    if name := reference.get("containerName"):
        every = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
        container = next(one for one in every if one["name"] == name)
    kind, _, resource = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    asked = (resources.get(kind) or {}).get(resource)
    if asked is None:
        asked = facts.allocatable.get(resource, "0") if kind == "limits" else "0"
    divisor = reference.get("divisor") or "1"
    return str(whole(asked, "1" if divisor == "0" else divisor))


def _data(kind: str, found: Mapping) -> dict[str, str]:
    texts = dict(found.get("data") or {})
    if kind == "Secret":
        # As the system keeps what is no text in a variable.
        return {name: os.fsdecode(base64.b64decode(text)) for name, text in texts.items()}
    return texts


def _from_objects(container: Mapping, look_up: Lookup) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or []:
        for field_name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if field_name not in source:
                continue
            reference = source[field_name]
            found = look_up(kind, reference["name"])
            if found is None:
                if reference.get("optional"):
                    continue
                raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')
            for name, text in _data(kind, found).items():
                yield source.get("prefix", "") + name, text


def _key(kind: str, reference: Mapping, look_up: Lookup, namespace: str) -> str | None:
    found = look_up(kind, reference["name"])
    if found is not None and reference["key"] in _data(kind, found):
        return _data(kind, found)[reference["key"]]
    if reference.get("optional"):
        return None
    if found is None:
        raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')
    raise ConfigError(
        f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}"
    )


def _value(
    pod: Mapping, container: Mapping, source: Mapping, look_up: Lookup, facts: Facts
) -> str | None:
    namespace = pod["metadata"]["namespace"]
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"], facts)
    if "resourceFieldRef" in source:
        return resource_value(pod, source["resourceFieldRef"], container, facts)
    if "secretKeyRef" in source:
        return _key("Secret", source["secretKeyRef"], look_up, namespace)
    return _key("ConfigMap", source["configMapKeyRef"], look_up, namespace)


def variables(pod: Mapping, container: Mapping, look_up: Lookup, facts: Facts) -> dict[str, str]:
    """What the manifest and the cluster give a container; the image's own are not in it."""
    made = dict(facts.services)
    made.update(_from_objects(container, look_up))
    for one in container.get("env") or []:
        if source := one.get("valueFrom"):
            text = _value(pod, container, source, look_up, facts)
            if text is not None:
                made[one["name"]] = text
        else:
            made[one["name"]] = expand(one.get("value") or "", made)
    return made


def service_variables(services: Sequence[Mapping]) -> dict[str, str]:
    """The variables by which a pod with service links finds the services of its namespace."""
    made: dict[str, str] = {}
    for service in services:
        address = service["spec"].get("clusterIP", "")
        ports = service["spec"].get("ports") or []
        if not ports or address in ("", "None"):
            continue
        prefix = service["metadata"]["name"].upper().replace("-", "_")
        first = ports[0]
        made[f"{prefix}_SERVICE_HOST"] = address
        made[f"{prefix}_SERVICE_PORT"] = str(first["port"])
        for port in ports:
            if name := port.get("name"):
                made[f"{prefix}_SERVICE_PORT_{name.upper().replace('-', '_')}"] = str(port["port"])
            protocol = port.get("protocol", "TCP")
            base = f"{prefix}_PORT_{port['port']}_{protocol}"
            url = f"{protocol.lower()}://{address}:{port['port']}"
            made |= {base: url, f"{base}_PROTO": protocol.lower()}
            made |= {f"{base}_PORT": str(port["port"]), f"{base}_ADDR": address}
        made[f"{prefix}_PORT"] = made[
            f"{prefix}_PORT_{first['port']}_{first.get('protocol', 'TCP')}"
        ]
    return made


def command_line(
    container: Mapping, entrypoint: Sequence[str], command: Sequence[str], known: Mapping[str, str]
) -> list[str]:
    """What the container executes: the image's own command only where the manifest has none."""
    args = container.get("args") or ()
    if first := container.get("command"):
        return [expand(part, known) for part in (*first, *args)]
    return [expand(part, known) for part in (*entrypoint, *(args or command))]
