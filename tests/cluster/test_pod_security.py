from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.pod_security import violations

BEST: dict[str, Any] = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(volumes: Any = (), **changes: Any) -> dict[str, Any]:
    context = {key: value for key, value in {**BEST, **changes}.items() if value is not None}
    return {"containers": [{"name": "a", "securityContext": context}], "volumes": list(volumes)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"runAsUser": 7}, []),
        ({"allowPrivilegeEscalation": None},
         ['allowPrivilegeEscalation != false (container "a" must set '
          "securityContext.allowPrivilegeEscalation=false)"]),
        ({"capabilities": {"drop": ["ALL"], "add": ["FOWNER"]}},
         ['unrestricted capabilities (container "a" must set '
          'securityContext.capabilities.drop=["ALL"])']),
        ({"runAsNonRoot": None},
         ['runAsNonRoot != true (pod or container "a" must set '
          "securityContext.runAsNonRoot=true)"]),
        ({"runAsUser": 0}, ['runAsUser=0 (container "a" must not set runAsUser=0)']),
        ({"seccompProfile": None},
         ['seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to '
          '"RuntimeDefault" or "Localhost")']),
        ({"volumes": [{"name": "v", "nfs": {}}]},
         ['restricted volume types (volume "v" uses restricted volume type "nfs")']),
    ],
)  # fmt: skip
def test_restricted(changes: dict[str, Any], told: list[str]) -> None:
    assert violations("restricted", pod(**changes)) == told


def test_baseline_and_privileged() -> None:
    worst = {"containers": [{"name": "a", "securityContext": {"privileged": True}}],
             "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}  # fmt: skip

    assert len(violations("baseline", worst)) == 2
    assert violations("privileged", worst) == violations("", worst) == []
    assert violations("baseline", pod(runAsUser=0, runAsNonRoot=None)) == []
