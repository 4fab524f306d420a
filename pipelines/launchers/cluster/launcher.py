"""Components as Jobs of a Kubernetes cluster."""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

from infra.errors import BadInputError, ModelyardError
from infra.kubernetes import names, objects
from infra.kubernetes.api import Api
from infra.kubernetes.cluster import Cluster
from infra.workloads import redaction
from infra.workloads.base import Backend, ExitStatus, Log, NoticeLog, Workload
from pipelines.launchers.cluster import pod, references
from pipelines.launchers.cluster.claims import ClusterClaims
from pipelines.launchers.cluster.life import Life, Patience
from pipelines.launchers.cluster.pod import Named
from pipelines.launchers.cluster.sight import Sight
from pipelines.launchers.cluster.staging import Staging

_OUTAGE_SECONDS = 600.0
_POLL_SECONDS = 1.0
# What a container can be told of its pod, as the API's own documentation of fieldRef lists it.
_FIELDS = re.compile(
    r"metadata\.(?:name|namespace|uid|(?:labels|annotations)\['[^']+'\])"
    r"|spec\.(?:nodeName|serviceAccountName)|status\.(?:hostIP|podIP)s?"
)


@dataclass(frozen=True)
class Attempt:
    """The run whose components a launcher runs.

    Attributes:
        flow_run_id: Its id.
        number: Which attempt of it this is, from 1.
    """

    flow_run_id: str
    number: int = 1


class KubernetesBackend(Backend):
    """Runs jobs as Jobs of a cluster, each in a pod of its own image.

    What a job reads and writes goes through object storage. Its paths mean the same there as
    here; of what it leaves elsewhere nothing comes back.

    Attributes:
        api: The cluster's API.
    """

    stages: ClassVar[bool] = True

    def __init__(
        self,
        api: Api,
        cluster: Cluster,
        staging: str,
        attempt: Attempt,
        *,
        poll_seconds: float = _POLL_SECONDS,
        outage_seconds: float = _OUTAGE_SECONDS,
    ) -> None:
        """Run jobs on a cluster.

        Args:
            api: The cluster's API.
            cluster: What all its pods have in common.
            staging: The URI below which files are staged.
            attempt: The attempt of the run that the jobs belong to.
            poll_seconds: How often the cluster is asked what has become of the jobs.
            outage_seconds: How long the cluster may be silent before a job is given up.
        """
        self.api = api
        self._cluster = cluster
        self._attempt = attempt
        self._staging = Staging(staging, attempt.flow_run_id)
        self._labels = pod.labels(attempt.flow_run_id, attempt.number)
        self._sight = Sight(api, self._labels, poll_seconds)
        queue = cluster.queue_minutes
        self._patience = Patience(
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
        """Where the run's claims of volumes are created and deleted."""
        return ClusterClaims(self.api, {**self._labels, names.PART: "claim"})

    def check(self, job: Workload) -> None:
        """Refuse a job that no pod can be."""
        if not job.image:
            raise BadInputError(
                f"{job.name} names no image.", "Give the component an image.",
                code="ImageNotRunnable",
            )  # fmt: skip
        if job.resources.accelerators:
            pod.device(job)
        for one in job.kubernetes.get("env", ()):
            path = one["valueFrom"].get("fieldRef", {}).get("fieldPath")
            if path and not _FIELDS.fullmatch(path):
                raise BadInputError(
                    f"{job.name} wants {path} in {one['name']}, which no pod is told of itself.",
                    "Use metadata.name, .namespace, .uid, .labels['KEY'] or .annotations['KEY'], "
                    "spec.nodeName or .serviceAccountName, status.podIP or .hostIP.",
                    code="PlatformUnsupported",
                )

    def run(self, job: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
        """Run a job to its end."""
        life = Life(self.api, self._sight, self._patience, log, cancelled)
        known = life.patiently(partial(references.look, job, self.api))
        self._notify(known.notes, log)
        life.hide = redaction.redactor(known.secrets)
        self._sweep(log, cancelled)
        named = life.patiently(partial(self._named, job))
        base = self._staging.base(f"{named.name}-{named.token}")
        plan = self._staging.send(job, base, cancelled)
        try:
            life.create(pod.build(job, self._cluster, named, plan, base))
            try:
                ended = life.follow(named.name, job)
            finally:
                life.remove(named.name)
            if ended.code == 0:
                self._staging.collect(job, base, cancelled)
        finally:
            self._forget(base, log)
        return ended

    def _named(self, job: Workload) -> Named:
        attempt = self._attempt
        digest = hashlib.sha256(job.name.encode()).hexdigest()[:8]
        name = f"{names.job(attempt.flow_run_id, attempt.number)}-{digest}"
        return Named(name, uuid.uuid4().hex[:8], self._labels, self._owner)

    @cached_property
    def _owner(self) -> Mapping[str, Any] | None:
        """The run's own Job, with which its components go; None if it is none of the cluster."""
        attempt = self._attempt
        return self.api.read("Job", names.job(attempt.flow_run_id, attempt.number))

    def _sweep(self, log: Log, cancelled: threading.Event) -> None:
        """End, once, what earlier attempts have left when they no longer could."""
        with self._lock:
            if self._swept:
                return
            labels = {key: value for key, value in self._labels.items() if key != names.ATTEMPT}
            all_of_them = Sight(self.api, labels, self._sight.seconds)
            life = Life(self.api, all_of_them, self._patience, log, cancelled)
            for name, seen in life.patiently(all_of_them.all).items():
                found = objects.metadata_of(seen.job or seen.pods[-1]).get("labels") or {}
                if found.get(names.ATTEMPT) != self._labels[names.ATTEMPT]:
                    life.remove(name)
            self._swept = True

    def _forget(self, base: str, log: Log) -> None:
        """Remove what was staged; that it stays is no reason for a component to fail."""
        try:
            self._staging.forget(base)
        except ModelyardError as error:
            log(f"What was staged at {base} stays there: {error.message}")
