"""One component on a cluster, from its Job's beginning until nothing of it is left."""

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
from infra.kubernetes.refusals import ClusterError
from infra.workloads import exit_status
from infra.workloads.base import ExitStatus, Log, Workload
from pipelines.launchers.cluster import verdict
from pipelines.launchers.cluster.lines import Lines
from pipelines.launchers.cluster.pod import COMPONENT, TOKEN
from pipelines.launchers.cluster.sight import Seen, Sight

T = TypeVar("T")

_TAIL = 20
_EVENTS_SECONDS = 3.0
_MARGIN_SECONDS = 10.0  # beyond the grace, before a pod is taken away by force


@dataclass(frozen=True)
class Patience:
    """How long is waited for what.

    Attributes:
        outage_seconds: The API server may be silent for so long before a component is given up.
        pending_seconds: A pod may make no progress for so long before its component runs.
        queue_seconds: It may wait for so long for what others have; None for ever.
        grace_seconds: A stopped pod may tidy up for so long.
    """

    outage_seconds: float
    pending_seconds: float
    grace_seconds: float
    queue_seconds: float | None = None


class Life:
    """Brings one Job into being, follows it, and takes it away."""

    def __init__(
        self,
        api: Api,
        sight: Sight,
        patience: Patience,
        log: Log,
        cancelled: threading.Event,
    ) -> None:
        """Be ready.

        Args:
            api: The cluster.
            sight: What is told of the run's components.
            patience: How long is waited for what.
            log: Told each line of the component, and what it waits for.
            cancelled: When set, the component is ended.
        """
        self._api = api
        self._sight = sight
        self._patience = patience
        self._log = log
        self._cancelled = cancelled
        # What is told of a line of the component.
        self.hide: Callable[[str], str] = str
        self._lines: Lines | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._waited = ""
        self._progress: tuple[object, float] = (None, 0.0)
        self._queued_since: float | None = None
        self._events: tuple[float, list[dict[str, Any]]] = (-_EVENTS_SECONDS, [])

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Make the Job. One of the same name that is another try's is taken away first.

        Raises:
            ClusterError: If the cluster refuses it.
        """
        name = objects.name_of(manifest)
        token = objects.metadata_of(manifest)["annotations"][TOKEN]
        while True:
            try:
                self.patiently(partial(self._api.create, manifest))
            except ClusterError as error:
                if error.code != "Conflict":
                    raise
            else:
                return
            there = self.patiently(partial(self._api.read, "Job", name))
            if there is None:
                continue
            if (objects.metadata_of(there).get("annotations") or {}).get(TOKEN) == token:
                return  # an earlier request had come through, though its answer had not
            self.remove(name)

    def follow(self, name: str, job: Workload) -> ExitStatus:
        """Wait for the end of a component; how it ended.

        Raises:
            ModelyardError: If it never ran; see :func:`verdict.judge`.
        """
        begun = time.monotonic()
        deadline = None
        while True:
            if self._cancelled.is_set():
                return exit_status.stopped(self._end(name))
            if deadline is not None and time.monotonic() > deadline:
                assert job.seconds is not None
                return exit_status.timed_out(self._end(name), job.seconds)
            seen = self.patiently(partial(self._sight.of, name, after=begun))
            state = verdict.state_of(seen.pods[-1], COMPONENT) if seen.pods else {}
            if self._lines is None and (state.keys() & {"running", "terminated"}):
                self._lines = Lines(
                    self._api, objects.name_of(seen.pods[-1]), COMPONENT, self._told
                )
                if job.seconds is not None:
                    deadline = time.monotonic() + job.seconds
            ended = self._judged(job, seen)
            if ended is not None:
                return replace(ended, reason=self.hide(ended.reason))
            if self._lines is None:
                self._check_progress(job, seen)
            self._cancelled.wait(self._sight.seconds)

    def _told(self, line: str) -> None:
        told = self.hide(line)
        self._tail.append(told)
        self._log(told)

    def _judged(self, job: Workload, seen: Seen) -> ExitStatus | None:
        over = not seen.pods or any(map(objects.ended, seen.pods))
        if over and self._lines is not None:
            self._lines.end()
        events = self._told_of(seen) if over or self._lines is None else []
        now = datetime.now(UTC)
        return verdict.judge(job, seen, events, now, [*self._tail], self._said)

    def _said(self, pod: str, container: str) -> str:
        return self.patiently(partial(self._api.log, pod, container, lines=_TAIL)) or ""

    def _told_of(self, seen: Seen) -> list[dict[str, Any]]:
        """The events of a component's Job and pods; asked for now and then."""
        at, events = self._events
        if time.monotonic() - at >= _EVENTS_SECONDS:
            events = []
            for one in (seen.job, *seen.pods):
                if one is not None:
                    of = f"involvedObject.name={objects.name_of(one)}"
                    events += self.patiently(partial(self._api.list, "Event", "", of))
            self._events = (time.monotonic(), events)
        return events

    def _check_progress(self, job: Workload, seen: Seen) -> None:
        """Tell what a component waits for, and give it up when that takes too long."""
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
        found = pending.waits(seen.job, seen.pods, self._told_of(seen), datetime.now(UTC))
        if found is None:
            return
        if found.category and found.category != self._waited:
            self._waited = found.category
            self._log(f"It waits. {found.category}: {found.message}")
        if found.queued:
            self._progress = (states, now)
            since = self._queued_since = self._queued_since or now
            seconds = self._patience.queue_seconds
        else:
            since, self._queued_since = self._progress[1], None
            seconds = self._patience.pending_seconds
        if seconds is not None and now - since > seconds:
            raise verdict.never_ran(job, pending.gives_up(found, seconds / 60))

    def _end(self, name: str) -> int | None:
        """End a component that still runs, and log what it prints until then; its exit code."""
        seen = self.patiently(partial(self._sight.of, name))
        self.remove(name)
        if self._lines is not None:
            self._lines.end()
        return verdict.exit_status(seen.pods[-1]) if seen.pods else None

    def remove(self, name: str) -> None:
        """Take a Job away with all its pods; returns when the cluster has neither any more.

        Raises:
            ClusterError: If the cluster does not let it go.
        """
        begun = time.monotonic()
        forced = begun + self._patience.grace_seconds + _MARGIN_SECONDS
        asked: set[tuple[str, str, int | None]] = set()
        while True:
            now = time.monotonic()
            seen = self.patiently(partial(self._sight.of, name, after=now))
            if seen.job is None and not seen.pods:
                return
            grace = 0 if now > forced else None
            for kind, one in (("Job", seen.job), *(("Pod", pod) for pod in seen.pods)):
                uid = str(objects.metadata_of(one or {}).get("uid", ""))
                if one is not None and (kind, uid, grace) not in asked:
                    self._delete(kind, one, uid, grace if kind == "Pod" else None)
                    asked.add((kind, uid, grace))
            time.sleep(self._sight.seconds / 2)

    def _delete(self, kind: str, one: Mapping[str, Any], uid: str, grace: int | None) -> None:
        name = objects.name_of(one)
        self.patiently(partial(self._api.delete, kind, name, grace_seconds=grace, uid=uid))

    def patiently(self, ask: Callable[[], T]) -> T:
        """What is asked, again while the API server is away, or others have used a quota up.

        Raises:
            ClusterError: Another one, or after too long.
        """
        until = time.monotonic() + self._patience.outage_seconds
        while True:
            try:
                return ask()
            except ClusterError as error:
                if not (error.transient or error.later) or time.monotonic() > until:
                    raise
            time.sleep(self._sight.seconds)
