"""Pod Security admission: what a namespace's label lets a pod be.

The checks and their sentences are those of ``k8s.io/pod-security-admission``, for the fields that
pods of the tests have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ENFORCE = "pod-security.kubernetes.io/enforce"
Spec = Mapping[str, Any]
_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
_BASELINE_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
    "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
_SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(level: str, pod: Spec) -> list[str]:
    """What of a pod's spec a level does not allow; empty for a level that allows all."""
    checks = {"baseline": (_baseline,), "restricted": (_baseline, _restricted)}.get(level, ())
    return [told for check in checks for told in check(pod)]


def _context(container: Spec) -> Spec:
    return container.get("securityContext") or {}


def _containers(pod: Spec) -> list[Spec]:
    return [*(pod.get("initContainers") or ()), *(pod.get("containers") or ())]


def _told(containers: list[str], what: str, of: str = "container") -> str:
    names = ", ".join(f'"{name}"' for name in containers)
    return f"{of}{'s' if len(containers) > 1 else ''} {names} must {what}"


def _baseline(pod: Spec) -> Iterator[str]:
    if hosts := [one["name"] for one in pod.get("volumes") or () if "hostPath" in one]:
        yield f"hostPath volumes (volume {hosts[0]})"
    found = [one["name"] for one in _containers(pod) if _context(one).get("privileged")]
    if found:
        yield f"privileged ({_told(found, 'not set securityContext.privileged=true')})"
    added = {
        capability
        for one in _containers(pod)
        for capability in (_context(one).get("capabilities") or {}).get("add") or ()
    } - _BASELINE_CAPABILITIES
    if added:
        yield f"non-default capabilities ({', '.join(sorted(added))})"


def _restricted(pod: Spec) -> Iterator[str]:
    whole = pod.get("securityContext") or {}
    contexts = {one["name"]: _context(one) for one in _containers(pod)}

    def wrong(fits: Any) -> list[str]:
        return [name for name, context in contexts.items() if not fits(context)]

    def capabilities(context: Spec) -> bool:
        told = context.get("capabilities") or {}
        return "ALL" in (told.get("drop") or ()) and set(told.get("add") or ()) <= {
            "NET_BIND_SERVICE"
        }

    if found := wrong(lambda one: one.get("allowPrivilegeEscalation") is False):
        told = _told(found, "set securityContext.allowPrivilegeEscalation=false")
        yield f"allowPrivilegeEscalation != false ({told})"
    if found := wrong(capabilities):
        told = _told(found, 'set securityContext.capabilities.drop=["ALL"]')
        yield f"unrestricted capabilities ({told})"
    for volume in pod.get("volumes") or ():
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield (
                f'restricted volume types (volume "{volume["name"]}" uses restricted volume type '
                f'"{kind}")'
            )
    if found := wrong(lambda one: one.get("runAsNonRoot", whole.get("runAsNonRoot"))):
        told = _told(found, "set securityContext.runAsNonRoot=true", "pod or container")
        yield f"runAsNonRoot != true ({told})"
    if found := wrong(lambda one: one.get("runAsUser", whole.get("runAsUser")) != 0):
        yield f"runAsUser=0 ({_told(found, 'not set runAsUser=0')})"
    profile = (whole.get("seccompProfile") or {}).get("type")
    if found := wrong(
        lambda one: (one.get("seccompProfile") or {}).get("type", profile) in _SECCOMP
    ):
        told = _told(
            found, 'set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"',
            "pod or container",
        )  # fmt: skip
        yield f"seccompProfile ({told})"
