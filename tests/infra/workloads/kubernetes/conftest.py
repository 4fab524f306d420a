from __future__ import annotations

from tests.infra.workloads.kubernetes.small_cluster import _running, running

__all__ = ["_running", "running"]
