"""What the API server refuses of a pod, beyond its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from tests.cluster.naming import amount, labels, wrong_key, wrong_name
from tests.cluster.quantities import quantity
from tests.cluster.refusals import Wrong, invalid, shown

Spec = Mapping[str, Any]
_STANDARD = ("cpu", "memory", "ephemeral-storage")
_FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_SUBSCRIPTED = re.compile(r"metadata\.(?:labels|annotations)\['([^']+)'\]")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_CHOICES = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "dnsPolicy": ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
}
_PULLS = ("Always", "IfNotPresent", "Never")
_MESSAGES = ("File", "FallbackToLogsOnError")


def pod(spec: Spec, at: str, name: str = "") -> Iterator[Wrong]:
    """What is wrong with a pod's spec; `name` is the pod's, "" in a template."""
    yield from _volumes(spec.get("volumes") or (), f"{at}.volumes", name)
    yield from _containers(spec, at)
    for key, known in _CHOICES.items():
        yield from unsupported(f"{at}.{key}", spec.get(key), known)
    for key in ("hostname", "subdomain"):
        if spec.get(key):
            yield from (
                invalid(f"{at}.{key}", spec[key], w) for w in wrong_name("label", spec[key])
            )
    for key in ("nodeName", "serviceAccountName", "priorityClassName"):
        if spec.get(key):
            whys = wrong_name("subdomain", spec[key])
            yield from (invalid(f"{at}.{key}", spec[key], why) for why in whys)
    yield from labels(spec.get("nodeSelector") or {}, f"{at}.nodeSelector")
    seconds = spec.get("activeDeadlineSeconds")
    if seconds is not None and not 1 <= seconds <= 2**31 - 1:
        yield invalid(
            f"{at}.activeDeadlineSeconds", seconds, "must be between 1 and 2147483647, inclusive"
        )
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        yield from _toleration(toleration, f"{at}.tolerations[{index}]")
    yield from _security(spec.get("securityContext") or {}, f"{at}.securityContext")


def unsupported(at: str, value: object, known: Sequence[str]) -> Iterator[Wrong]:
    """A value that is none of those there are."""
    if value is not None and value not in known:
        told = ", ".join(f'"{one}"' for one in known)
        yield Wrong(at, "Unsupported value", f"{shown(value)}: supported values: {told}")


def _containers(spec: Spec, at: str) -> Iterator[Wrong]:
    if not spec.get("containers"):
        yield Wrong(f"{at}.containers", "Required value")
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    seen: set[str] = set()
    for key in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(key) or ()):
            place = f"{at}.{key}[{index}]"
            name = container.get("name", "")
            if not name:
                yield Wrong(f"{place}.name", "Required value")
            else:
                whys = wrong_name("label", name)
                yield from (invalid(f"{place}.name", name, why) for why in whys)
            if name in seen:
                yield Wrong(f"{place}.name", "Duplicate value", shown(name))
            seen.add(name)
            yield from _container(container, place, volumes)


def _container(container: Spec, at: str, volumes: set[Any]) -> Iterator[Wrong]:
    image = container.get("image", "")
    if not image:
        yield Wrong(f"{at}.image", "Required value")
    elif image != image.strip():
        yield invalid(f"{at}.image", image, "must not have leading or trailing whitespace")
    yield from unsupported(f"{at}.imagePullPolicy", container.get("imagePullPolicy"), _PULLS)
    yield from unsupported(
        f"{at}.terminationMessagePolicy", container.get("terminationMessagePolicy"), _MESSAGES
    )
    for index, variable in enumerate(container.get("env") or ()):
        yield from _variable(variable, f"{at}.env[{index}]")
    for index, source in enumerate(container.get("envFrom") or ()):
        if len({"configMapRef", "secretRef"} & set(source)) != 1:
            yield invalid(
                f"{at}.envFrom[{index}]",
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )
    yield from _mounts(container.get("volumeMounts") or (), f"{at}.volumeMounts", volumes)
    yield from _ports(container.get("ports") or (), f"{at}.ports")
    yield from resources(container.get("resources") or {}, f"{at}.resources")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container and len([one for one in _HANDLERS if one in container[probe]]) != 1:
            yield Wrong(f"{at}.{probe}", "Required value", "must specify a handler type")
    context = container.get("securityContext") or {}
    yield from _security(context, f"{at}.securityContext")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            yield invalid(
                f"{at}.securityContext",
                "",
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            )
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            yield invalid(
                f"{at}.securityContext",
                "",
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` "
                "CAP_SYS_ADMIN",
            )


def _variable(variable: Spec, at: str) -> Iterator[Wrong]:
    name = variable.get("name", "")
    if not name:
        yield Wrong(f"{at}.name", "Required value")
    elif not re.fullmatch(r"[ -<>-~]+", name):
        yield invalid(
            f"{at}.name",
            name,
            "a valid environment variable name must consist only of printable ASCII characters "
            "other than '='",
        )
    source = variable.get("valueFrom")
    if source is None:
        return
    if variable.get("value"):
        yield invalid(f"{at}.valueFrom", "", "may not be specified when `value` is not empty")
    if len(source) != 1:
        why = "may not have more than one field specified at a time" if source else (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or "
            "`secretKeyRef`")  # fmt: skip
        yield invalid(f"{at}.valueFrom", "", why)
    path = (source.get("fieldRef") or {}).get("fieldPath")
    if path is not None:
        yield from _field_path(path, f"{at}.valueFrom.fieldRef.fieldPath")


def _field_path(path: str, at: str) -> Iterator[Wrong]:
    if found := _SUBSCRIPTED.fullmatch(path):
        yield from (invalid(at, found[1], why) for why in wrong_key(found[1].lower()))
    elif path not in _FIELD_PATHS:
        yield invalid(at, path, "error converting fieldPath: field label not supported")


def _mounts(mounts: Sequence[Spec], at: str, volumes: set[Any]) -> Iterator[Wrong]:
    places: set[str] = set()
    for index, mount in enumerate(mounts):
        place, path = f"{at}[{index}]", mount.get("mountPath", "")
        if mount.get("name") not in volumes:
            yield Wrong(f"{place}.name", "Not found", shown(mount.get("name", "")))
        if not path:
            yield Wrong(f"{place}.mountPath", "Required value")
        if path in places:
            yield invalid(f"{place}.mountPath", path, "must be unique")
        places.add(path)
        inside = mount.get("subPath", "")
        if inside.startswith("/"):
            yield invalid(f"{place}.subPath", inside, "must be a relative path")
        if ".." in PurePosixPath(inside).parts:
            yield invalid(f"{place}.subPath", inside, "must not contain '..'")


def _ports(ports: Sequence[Spec], at: str) -> Iterator[Wrong]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        number, name = port.get("containerPort", 0), port.get("name")
        if not 1 <= number <= 65535:
            why = "must be between 1 and 65535, inclusive"
            yield invalid(f"{at}[{index}].containerPort", number, why)
        if name and (len(name) > 15 or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)):
            yield invalid(f"{at}[{index}].name", name, "must be no more than 15 characters, of "
                          "lower case letters, digits and single '-'")  # fmt: skip
        if name in names:
            yield Wrong(f"{at}[{index}].name", "Duplicate value", shown(name))
        if name:
            names.add(name)


def resources(found: Spec, at: str) -> Iterator[Wrong]:
    """What is wrong with a container's resources."""
    limits, requests = found.get("limits") or {}, found.get("requests") or {}
    sound: dict[str, set[str]] = {"limits": set(), "requests": set()}
    for key, amounts in (("limits", limits), ("requests", requests)):
        for name, value in amounts.items():
            place = f"{at}.{key}[{name}]"
            wrongs = [*_resource(name, place), *amount(value, place)]
            if not wrongs and _extended(name) and quantity(str(value)).denominator != 1:
                wrongs.append(invalid(place, value, "must be an integer"))
            if not wrongs:
                sound[key].add(name)
            yield from wrongs
    for name in sorted(sound["requests"]):
        wanted = requests[name]
        if name not in limits:
            if _extended(name):
                yield Wrong(
                    f"{at}.limits",
                    "Required value",
                    "Limit must be set for non overcommitable resources",
                )
        elif name in sound["limits"]:
            most = limits[name]
            if _extended(name) and quantity(str(wanted)) != quantity(str(most)):
                why = f"must be equal to {name} limit of {most}"
                yield invalid(f"{at}.requests", str(wanted), why)
            elif quantity(str(wanted)) > quantity(str(most)):
                why = f"must be less than or equal to {name} limit of {most}"
                yield invalid(f"{at}.requests", str(wanted), why)


def _extended(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name


def _resource(name: str, at: str) -> Iterator[Wrong]:
    yield from (invalid(at, name, why) for why in wrong_key(name))
    if "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
        yield invalid(at, name, "must be a standard resource type or fully qualified")
        yield invalid(at, name, "must be a standard resource for containers")


def _volumes(volumes: Sequence[Spec], at: str, pod_name: str) -> Iterator[Wrong]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        place, name = f"{at}[{index}]", volume.get("name", "")
        if not name:
            yield Wrong(f"{place}.name", "Required value")
        else:
            yield from (invalid(f"{place}.name", name, w) for w in wrong_name("label", name))
        if name in seen:
            yield Wrong(f"{place}.name", "Duplicate value", shown(name))
        seen.add(name)
        sources = [key for key in volume if key != "name"]
        for extra in sources[1:]:
            why = "may not specify more than 1 volume type"
            yield Wrong(f"{place}.{extra}", "Forbidden", why)
        if sources:
            yield from _source(sources[0], volume[sources[0]], place, f"{pod_name}-{name}")


def _source(kind: str, source: Spec, at: str, claim: str) -> Iterator[Wrong]:
    needed = {
        "nfs": ("server", "path"),
        "secret": ("secretName",),
        "configMap": ("name",),
        "persistentVolumeClaim": ("claimName",),
        "hostPath": ("path",),
    }
    for key in needed.get(kind, ()):
        if not source.get(key):
            yield Wrong(f"{at}.{kind}.{key}", "Required value")
    if kind == "nfs" and source.get("path") and not source["path"].startswith("/"):
        yield invalid(f"{at}.nfs.path", source["path"], "must be an absolute path")
    if kind == "emptyDir":
        if "sizeLimit" in source:
            yield from amount(source["sizeLimit"], f"{at}.emptyDir.sizeLimit")
        yield from unsupported(
            f"{at}.emptyDir.medium", source.get("medium") or None, ("Memory", "HugePages")
        )
    if kind == "ephemeral":
        template = source.get("volumeClaimTemplate")
        if template is None:
            yield Wrong(f"{at}.ephemeral.volumeClaimTemplate", "Required value")
            return
        yield from claim_spec(
            template.get("spec") or {}, f"{at}.ephemeral.volumeClaimTemplate.spec"
        )
        if not claim.startswith("-"):
            whys = wrong_name("subdomain", claim)
            yield from (invalid(f"{at}.name", claim, why) for why in whys)


def claim_spec(spec: Spec, at: str) -> Iterator[Wrong]:
    """What is wrong with the spec of a PersistentVolumeClaim."""
    modes = spec.get("accessModes") or ()
    if not modes:
        yield Wrong(f"{at}.accessModes", "Required value", "at least 1 access mode is required")
    known = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    for mode in modes:
        yield from unsupported(f"{at}.accessModes", mode, known)
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        yield Wrong(f"{at}.resources[storage]", "Required value")
    else:
        wrongs = list(amount(storage, f"{at}.resources[storage]"))
        if not wrongs and quantity(str(storage)) == 0:
            wrongs = [invalid(f"{at}.resources[storage]", storage, "must be greater than zero")]
        yield from wrongs


def _toleration(toleration: Spec, at: str) -> Iterator[Wrong]:
    operator = toleration.get("operator") or "Equal"
    yield from unsupported(f"{at}.operator", operator, ("Equal", "Exists", "Lt", "Gt"))
    if not toleration.get("key") and operator != "Exists":
        yield invalid(
            f"{at}.operator",
            operator,
            'operator must be Exists when `key` is empty, which means "match all values and all '
            'keys"',
        )
    if operator == "Exists" and toleration.get("value"):
        why = "value must be empty when `operator` is 'Exists'"
        yield invalid(f"{at}.operator", toleration["value"], why)
    effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
    yield from unsupported(f"{at}.effect", toleration.get("effect") or None, effects)
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        yield invalid(f"{at}.effect", toleration.get("effect", ""), why)


def _security(context: Spec, at: str) -> Iterator[Wrong]:
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        if context.get(key, 0) < 0:
            why = "must be between 0 and 2147483647, inclusive"
            yield invalid(f"{at}.{key}", context[key], why)
    profile = context.get("seccompProfile")
    if profile is None:
        return
    known = ("Localhost", "RuntimeDefault", "Unconfined")
    yield from unsupported(f"{at}.seccompProfile.type", profile.get("type"), known)
    local = profile.get("type") == "Localhost"
    if local and not profile.get("localhostProfile"):
        why = "must be set when seccomp type is Localhost"
        yield Wrong(f"{at}.seccompProfile.localhostProfile", "Required value", why)
    if not local and profile.get("localhostProfile"):
        yield invalid(
            f"{at}.seccompProfile.localhostProfile",
            profile["localhostProfile"],
            "can only be set when seccomp type is Localhost",
        )
