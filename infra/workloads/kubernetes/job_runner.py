"""One workload on a cluster, from its Job's creation until nothing of it is left."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from infra.kubernetes import objects, pending
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.workloads import exit_status
from infra.workloads.base import Log, Workload
from infra.workloads.exit_status import ExitStatus
from infra.workloads.kubernetes import job_outcome
from infra.workloads.kubernetes.job_cache import JobCache, ObservedJob
from infra.workloads.kubernetes.job_manifest import COMPONENT, TOKEN
from infra.workloads.kubernetes.log_follower import LogFollower
from infra.workloads.kubernetes.sidecar_follower import SidecarFollower

T = TypeVar("T")

_TAIL = 20
_EVENTS_SECONDS = 3.0
_MARGIN_SECONDS = 10.0  # beyond the grace, before a pod is taken away by force


@dataclass(frozen=True)
class WaitLimits:
    """Limits of waiting.

    Attributes:
        outage_seconds: How long the API server may fail.
        pending_seconds: How long a pod may make no progress before its container runs.
        queue_seconds: How long it may wait for resources that others have; None for ever.
        grace_seconds: How long a stopped pod may tidy up.
    """

    outage_seconds: float
    pending_seconds: float
    grace_seconds: float
    queue_seconds: float | None = None


class JobRunner:
    """Creates one Job, follows it, and deletes it."""

    def __init__(
        self,
        api: Api,
        cache: JobCache,
        limits: WaitLimits,
        log: Log,
        cancelled: threading.Event,
    ) -> None:
        """Prepare to run one workload.

        Args:
            api: The cluster.
            cache: Jobs and pods of the run.
            limits: Limits of waiting.
            log: Receives each line of the workload, and what it waits for.
            cancelled: When set, the workload is stopped.
        """
        self._api = api
        self._cache = cache
        self._limits = limits
        self._log = log
        self._cancelled = cancelled
        # Hides secrets in a line of output.
        self.redact: Callable[[str], str] = str
        self._lines: LogFollower | None = None
        self._sidecar: SidecarFollower | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._waited = ""
        self._progress: tuple[object, float] = (None, 0.0)
        self._queued_since: float | None = None
        self._events: tuple[float, list[dict[str, Any]]] = (-_EVENTS_SECONDS, [])

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Create the Job; one of the same name of an earlier try is deleted first.

        Raises:
            ClusterError: If the cluster refuses it.
        """
        name = objects.name_of(manifest)
        token = objects.metadata_of(manifest)["annotations"][TOKEN]
        while True:
            try:
                self.retry_transient(partial(self._api.create, manifest))
            except ClusterError as error:
                if error.code != "Conflict":
                    raise
            else:
                return
            there = self.retry_transient(partial(self._api.read, "Job", name))
            if there is None:
                continue
            if (objects.metadata_of(there).get("annotations") or {}).get(TOKEN) == token:
                return  # an earlier request had come through, though its answer had not
            self.remove(name)

    def follow(self, name: str, workload: Workload) -> ExitStatus:
        """Wait for the end of the workload.

        Raises:
            ModelyardError: If it never ran; see :func:`job_outcome.judge`.
        """
        begun = time.monotonic()
        deadline = None
        if workload.sidecar:
            self._sidecar = SidecarFollower(
                self._api, workload.sidecar, lambda line: self._log(self.redact(line))
            )
        while True:
            if self._cancelled.is_set():
                return exit_status.stopped(self._end(name))
            if deadline is not None and time.monotonic() > deadline:
                assert workload.seconds is not None
                return exit_status.timed_out(self._end(name), workload.seconds)
            seen = self.retry_transient(partial(self._cache.of, name, after=begun))
            state = job_outcome.state_of(seen.pods[-1], COMPONENT) if seen.pods else {}
            if self._sidecar and seen.pods:
                self._sidecar.observe(seen.pods[-1])
            if self._lines is None and (state.keys() & {"running", "terminated"}):
                self._lines = LogFollower(
                    self._api, objects.name_of(seen.pods[-1]), COMPONENT, self._on_line
                )
                if workload.seconds is not None:
                    deadline = time.monotonic() + workload.seconds
            ended = self._judged(workload, seen)
            if ended is not None:
                return replace(ended, reason=self.redact(ended.reason))
            if self._lines is None:
                self._check_progress(workload, seen)
            self._cancelled.wait(self._cache.seconds)

    def _on_line(self, line: str) -> None:
        redacted = self.redact(line)
        self._tail.append(redacted)
        self._log(redacted)

    def _judged(self, workload: Workload, seen: ObservedJob) -> ExitStatus | None:
        over = not seen.pods or any(map(objects.is_ended, seen.pods))
        if over:
            self._end_logs()
        events = self._events_of(seen) if over or self._lines is None else []
        now = datetime.now(UTC)
        return job_outcome.decide(workload, seen, events, now, [*self._tail], self._said)

    def _end_logs(self) -> None:
        """Read the rest of what the workload has printed."""
        for one in (self._lines, self._sidecar):
            if one is not None:
                one.end()

    def _said(self, pod: str, container: str) -> str:
        return self.retry_transient(partial(self._api.log, pod, container, lines=_TAIL)) or ""

    def _events_of(self, seen: ObservedJob) -> list[dict[str, Any]]:
        """Events of the Job and its pods, listed now and then."""
        at, events = self._events
        if time.monotonic() - at >= _EVENTS_SECONDS:
            events = []
            for one in (seen.job, *seen.pods):
                if one is not None:
                    of = f"involvedObject.name={objects.name_of(one)}"
                    events += self.retry_transient(partial(self._api.list, "Event", "", of))
            self._events = (time.monotonic(), events)
        return events

    def _check_progress(self, workload: Workload, seen: ObservedJob) -> None:
        """Log what the workload waits for, and give it up when that takes too long."""
        now = time.monotonic()
        states = [
            (one.get("name"), *(one.get("state") or {}).keys())
            for pod in seen.pods
            for one in objects.containers_of(pod)
        ]
        if states != self._progress[0] or any("running" in state for state in states):
            self._progress = (states, now)
        if seen.job is None:
            return
        found = pending.diagnose_pending(
            seen.job, seen.pods, self._events_of(seen), datetime.now(UTC)
        )
        if found is None:
            return
        if found.category and found.category != self._waited:
            self._waited = found.category
            self._log(f"It waits. {found.category}: {found.message}")
        if found.queued:
            self._progress = (states, now)
            since = self._queued_since = self._queued_since or now
            seconds = self._limits.queue_seconds
        else:
            since, self._queued_since = self._progress[1], None
            seconds = self._limits.pending_seconds
        if seconds is not None and now - since > seconds:
            raise job_outcome.never_ran(
                workload, pending.diagnose_start_timeout(found, seconds / 60)
            )

    def _end(self, name: str) -> int | None:
        """End a component that still runs, and log what it prints until then; its exit code."""
        seen = self.retry_transient(partial(self._cache.of, name))
        self.remove(name)
        self._end_logs()
        return job_outcome.exit_status(seen.pods[-1]) if seen.pods else None

    def remove(self, name: str) -> None:
        """Take a Job away with all its pods; returns when the cluster has neither any more.

        Raises:
            ClusterError: If the cluster does not let it go.
        """
        begun = deleted = time.monotonic()
        forced = begun + self._limits.grace_seconds + _MARGIN_SECONDS
        asked: set[tuple[str, str, int | None]] = set()
        while True:
            seen = self.retry_transient(partial(self._cache.of, name, after=deleted))
            if seen.job is None and not seen.pods:
                return
            grace = 0 if time.monotonic() > forced else None
            for kind, one in (("Job", seen.job), *(("Pod", pod) for pod in seen.pods)):
                uid = str(objects.metadata_of(one or {}).get("uid", ""))
                if one is not None and (kind, uid, grace) not in asked:
                    self._delete(kind, one, uid, grace if kind == "Pod" else None)
                    asked.add((kind, uid, grace))
                    deleted = time.monotonic()
            time.sleep(self._cache.seconds / 2)

    def _delete(self, kind: str, one: Mapping[str, Any], uid: str, grace: int | None) -> None:
        name = objects.name_of(one)
        self.retry_transient(partial(self._api.delete, kind, name, grace_seconds=grace, uid=uid))

    def retry_transient(self, ask: Callable[[], T]) -> T:
        """What is asked, again while the API server is away, or others have used a quota up.

        Raises:
            ClusterError: Another one, or after too long.
        """
        until = time.monotonic() + self._limits.outage_seconds
        while True:
            try:
                return ask()
            except ClusterError as error:
                if not (error.transient or error.later) or time.monotonic() > until:
                    raise
            time.sleep(self._cache.seconds)
