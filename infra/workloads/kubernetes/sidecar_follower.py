"""What a workload's sidecar prints, and how it ended, as lines of the workload's log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from infra.kubernetes import objects
from infra.kubernetes.api import Api
from infra.workloads import exit_status
from infra.workloads.base import Sidecar
from infra.workloads.kubernetes.log_follower import LogFollower

_OOM_KILLED = "OOMKilled"


class SidecarFollower:
    """Follows the sidecar of one pod. For one thread, but for the log's lines."""

    def __init__(self, api: Api, sidecar: Sidecar, log: Callable[[str], object]) -> None:
        """Send lines to ``log``."""
        self._api = api
        self._sidecar = sidecar
        self._log = log
        self._lines: LogFollower | None = None
        self._restarts = 0

    def observe(self, pod: Mapping[str, Any]) -> None:
        """See how it is; once it runs, its log is followed."""
        status = objects.container_status(pod, self._sidecar.name)
        state = status.get("state") or {}
        if self._lines is None and state.keys() & {"running", "terminated"}:
            self._lines = LogFollower(
                self._api, objects.name_of(pod), self._sidecar.name, self._on_line
            )
        restarts = int(status.get("restartCount") or 0)
        over = (status.get("lastState") or {}).get("terminated")
        if over and restarts > self._restarts:
            self._restarts = restarts
            self._on_line(f"{_how_it_ended(over, self._sidecar)} It is started again.")

    def end(self) -> None:
        """Read the rest of what it has printed, once its pod has ended."""
        if self._lines is not None:
            self._lines.end()

    def _on_line(self, line: str) -> None:
        self._log(f"{self._sidecar.prefix}{line}")


def _how_it_ended(over: Mapping[str, Any], sidecar: Sidecar) -> str:
    if over.get("reason") == _OOM_KILLED:
        limit = sidecar.resources.memory / 2**30
        return f"It used more memory than its limit of {limit:.1f} GiB, and was killed."
    code = exit_status.from_shell(int(over.get("exitCode") or 0))
    return exit_status.reason(code, []) or "It ended with exit status 0."
