"""Backend that runs workloads as Jobs of a cluster, each in a pod of its own image."""

from __future__ import annotations

import hashlib
import re
import signal
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

from infra.errors import BadInputError, ModelyardError
from infra.kubernetes import names, objects
from infra.kubernetes.api import Api
from infra.kubernetes.cluster import ClusterConfig
from infra.workloads import redaction
from infra.workloads.base import Backend, Log, NoticeLog, Workload
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.kubernetes import job_manifest, references
from infra.workloads.kubernetes.claims import ClusterClaims
from infra.workloads.kubernetes.instance_pool import InstancePool
from infra.workloads.kubernetes.job_cache import JobCache
from infra.workloads.kubernetes.job_manifest import ANY_NODE, InstanceSpec, JobIdentity
from infra.workloads.kubernetes.job_runner import JobRunner, WaitLimits
from infra.workloads.kubernetes.staging import StagingArea

_OUTAGE_SECONDS = 600.0
_POLL_SECONDS = 1.0
# Fields that fieldRef supports, as the API documents them.
_FIELDS = re.compile(
    r"metadata\.(?:name|namespace|uid|(?:labels|annotations)\['[^']+'\])"
    r"|spec\.(?:nodeName|serviceAccountName)|status\.(?:hostIP|podIP)s?"
)


@dataclass(frozen=True)
class RunAttempt:
    """Attempt of a run to which workloads belong.

    Attributes:
        flow_run_id: The run's id.
        number: Number of the attempt, from 1.
    """

    flow_run_id: str
    number: int = 1


class KubernetesBackend(Backend):
    """Backend that runs workloads as Jobs of a cluster.

    Inputs and outputs go through object storage. A workload's paths mean the same in its pod as
    on this machine; files that it leaves elsewhere are lost with the pod.

    Attributes:
        api: The cluster's API.
    """

    stages: ClassVar[bool] = True

    def __init__(
        self,
        api: Api,
        cluster: ClusterConfig,
        staging: str,
        attempt: RunAttempt,
        *,
        instances: InstanceSpec = ANY_NODE,
        poll_seconds: float = _POLL_SECONDS,
        outage_seconds: float = _OUTAGE_SECONDS,
    ) -> None:
        """Run workloads on a cluster.

        Args:
            api: The cluster's API.
            cluster: Its configuration.
            staging: The URI below which files are staged.
            attempt: The attempt of the run that they belong to.
            instances: What their pods run on.
            poll_seconds: Interval at which workloads are looked at, and at which Jobs and pods are
                listed where they cannot be watched.
            outage_seconds: How long the API may fail before a workload is given up.
        """
        self.api = api
        self._cluster = cluster
        self._attempt = attempt
        self._instances = instances
        self._pool = InstancePool(instances)
        self._staging = StagingArea(staging, attempt.flow_run_id)
        self._labels = job_manifest.labels(attempt.flow_run_id, attempt.number)
        self._cache = JobCache(api, self._labels, poll_seconds)
        queue = cluster.queue_minutes
        self._limits = WaitLimits(
            outage_seconds,
            cluster.pending_minutes * 60,
            cluster.grace_seconds,
            None if queue is None else queue * 60,
        )
        self._lock = threading.Lock()
        self._notify = NoticeLog()
        self._swept = False

    @property
    def claims(self) -> ClusterClaims:
        """Volume claims of the run."""
        return ClusterClaims(self.api, {**self._labels, names.PART: "claim"})

    def check(self, workload: Workload) -> None:
        """Refuse a workload that cannot run in a pod."""
        if not workload.image:
            raise BadInputError(
                f"{workload.name} has no image.", "Give the component an image.",
                code="ImageNotRunnable",
            )  # fmt: skip
        if workload.resources.accelerators:
            job_manifest.device(workload.resources, workload.name)
        if workload.sidecar and workload.sidecar.resources.accelerators:
            job_manifest.device(workload.sidecar.resources, workload.sidecar.name)
        self._pool.check(workload)
        for one in workload.kubernetes.get("env", ()):
            path = one["valueFrom"].get("fieldRef", {}).get("fieldPath")
            if path and not _FIELDS.fullmatch(path):
                raise BadInputError(
                    f"{workload.name} requests {path} in {one['name']}, which a pod cannot see of "
                    "itself.",
                    "Use metadata.name, .namespace, .uid, .labels['KEY'] or .annotations['KEY'], "
                    "spec.nodeName or .serviceAccountName, status.podIP or .hostIP.",
                    code="PlatformUnsupported",
                )

    def close(self) -> None:
        """Watch Jobs and pods no more."""
        self._cache.close()

    def run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
        """Run a workload to its end, once its pod has room on the run's instances."""
        with self._pool.room(workload, log, cancelled) as found:
            if not found:
                why = "It was stopped before it began."
                return ExitStatus(-signal.SIGTERM, why, ExitCause.STOPPED)
            return self._run(workload, log, cancelled)

    def _run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
        self._cache.watch()
        runner = JobRunner(self.api, self._cache, self._limits, log, cancelled)
        known = runner.retry_transient(partial(references.check, workload, self.api))
        self._notify(known.notices, log)
        runner.redact = redaction.redactor(known.secrets)
        self._sweep(log, cancelled)
        named = runner.retry_transient(partial(self._named, workload))
        base = self._staging.base(f"{named.name}-{named.token}")
        plan = self._staging.send(workload, base, cancelled)
        try:
            job = job_manifest.build_job(
                workload, self._cluster, named, plan, base, self._instances
            )
            runner.create(job)
            try:
                ended = runner.follow(named.name, workload)
            finally:
                runner.remove(named.name)
            if ended.code == 0:
                self._staging.collect(workload, base, cancelled)
        finally:
            self._forget(base, log)
        return ended

    def _named(self, workload: Workload) -> JobIdentity:
        attempt = self._attempt
        digest = hashlib.sha256(workload.name.encode()).hexdigest()[:8]
        name = f"{names.job_name(attempt.flow_run_id, attempt.number)}-{digest}"
        return JobIdentity(name, uuid.uuid4().hex[:8], self._labels, self._owner)

    @cached_property
    def _owner(self) -> Mapping[str, Any] | None:
        """The run's own Job, which owns its workloads' Jobs; None if the run is elsewhere."""
        attempt = self._attempt
        return self.api.read("Job", names.job_name(attempt.flow_run_id, attempt.number))

    def _sweep(self, log: Log, cancelled: threading.Event) -> None:
        """Delete, once, the objects of earlier attempts that were killed."""
        with self._lock:
            if self._swept:
                return
            labels = {key: value for key, value in self._labels.items() if key != names.ATTEMPT}
            all_of_them = JobCache(self.api, labels, self._cache.seconds)
            runner = JobRunner(self.api, all_of_them, self._limits, log, cancelled)
            for name, seen in runner.retry_transient(all_of_them.all).items():
                found = objects.metadata_of(seen.job or seen.pods[-1]).get("labels") or {}
                if found.get(names.ATTEMPT) != self._labels[names.ATTEMPT]:
                    runner.remove(name)
            self._swept = True

    def _forget(self, base: str, log: Log) -> None:
        """Remove staged files; a failure is only logged."""
        try:
            self._staging.forget(base)
        except ModelyardError as error:
            log(f"What was staged at {base} stays there: {error.message}")
