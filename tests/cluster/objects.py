"""Objects that the tests make."""

from __future__ import annotations

from typing import Any


def pod(name: str = "p", *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A Pod of one container; what is given goes into its spec."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": [container()], **spec},
    }


def container(**more: Any) -> dict[str, Any]:
    """A container, named run."""
    return {"name": "run", "image": "registry.test/one:1", **more}


def job(name: str = "j", *, pod_spec: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A Job; what is given goes into its spec."""
    template = {"containers": [container()], "restartPolicy": "Never", **(pod_spec or {})}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": template}, **spec},
    }
