"""Jobs of runs on a cluster: create, observe and stop them, and read their logs.

An attempt of a run has one Job, whose name is derived from both, so that there cannot be a
second one. All objects of an attempt, those of a pipeline's components included, have labels by
which they are found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from infra.kubernetes import manifests, names, objects
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import AttemptSpec
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.objects import Object

LAST_LINES = 500

# The id of a flow run and the number of its attempt.
Key = tuple[str, int]


@dataclass(frozen=True)
class AttemptStatus:
    """Observed objects of an attempt of a run on a cluster.

    Attributes:
        flow_run_id: The run.
        attempt: The number of its attempt.
        jobs: Its Jobs: its own, and those of a pipeline's components.
        pods: Their pods.
        gone_pods: Pods of its own Job that are gone, as they were last seen.
    """

    flow_run_id: str
    attempt: int
    jobs: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    gone_pods: tuple[Object, ...] = ()

    @property
    def key(self) -> Key:
        """The id of the run and the number of the attempt."""
        return self.flow_run_id, self.attempt

    @property
    def job(self) -> Object | None:
        """Its own Job; None if it is gone."""
        return next(filter(_is_own, self.jobs), None)

    @property
    def own_pods(self) -> tuple[Object, ...]:
        """The pods of its own Job, those that are gone included."""
        return (*filter(_is_own, self.pods), *self.gone_pods)

    @property
    def is_active(self) -> bool:
        """Whether any of its Jobs or pods has not ended."""
        return not (
            all(map(objects.is_finished, self.jobs)) and all(map(objects.is_ended, self.pods))
        )

    def with_gone_pods(self, before: AttemptStatus | None) -> AttemptStatus:
        """Add the pods of an earlier observation that have been deleted since.

        Only the pod's status says why it ended, and it may be deleted within a second.
        """
        if before is None:
            return self
        there = {_uid(pod) for pod in self.pods}
        gone = [pod for pod in before.own_pods if _uid(pod) not in there]
        return replace(self, gone_pods=tuple(map(_as_gone, gone)))


def _is_own(thing: Object) -> bool:
    return objects.label(thing, names.PART) != "component"


def _uid(thing: Object) -> str:
    return str(objects.metadata_of(thing).get("uid", ""))


def _as_gone(pod: Object) -> Object:
    if objects.is_ended(pod):
        return pod
    metadata = objects.metadata_of(pod)
    return {
        **pod,
        "metadata": {"deletionTimestamp": metadata.get("creationTimestamp"), **metadata},
        "status": {**objects.status_of(pod), "phase": "Failed"},
    }


class Jobs:
    """Jobs of Modelyard's runs in a cluster's namespace.

    Every method raises ``ClusterError``. Calls block: in an event loop they belong in a thread.
    """

    def __init__(self, api: Api, cluster: ClusterConfig) -> None:
        self._api = api
        self._cluster = cluster

    def start(self, wanted: AttemptSpec) -> str:
        """Create the attempt's Job, and the Service of its nodes; return the Job's name.

        A Job that exists already, because the response to an earlier request was lost, is used.

        Raises:
            ClusterError: If the cluster refuses, or does not answer.
            BadInputError: If the cluster's configuration lacks what the attempt needs.
        """
        job = self._create(manifests.job(wanted, self._cluster))
        service = manifests.service(wanted, job)
        if service:
            try:
                self._create(service)
            except ClusterError:
                with contextlib.suppress(ClusterError):  # else the reconciler ends it
                    self._api.delete("Job", objects.name_of(job), uid=_uid(job))
                raise
        return objects.name_of(job)

    def _create(self, manifest: Object) -> Object:
        try:
            return self._api.create(manifest)
        except ClusterError as error:
            if error.code != "Conflict":
                raise
            there = self._api.read(manifest["kind"], objects.name_of(manifest))
            labels = (names.MANAGED_BY, names.FLOW_RUN, names.ATTEMPT)
            if there is None or any(
                objects.label(there, x) != objects.label(manifest, x) for x in labels
            ):
                raise
            return there

    def find(self, flow_run_id: str = "") -> dict[Key, AttemptStatus]:
        """Observe all attempts of all runs, or of one run.

        This lists the Jobs once and the pods once. The Jobs come first, so that an ended Job is
        always observed with its ended pods. A Job that is created in between is observed by its
        pods, and read by its name.
        """
        labels = {**names.OURS, **({names.FLOW_RUN: flow_run_id} if flow_run_id else {})}
        found: dict[Key, AttemptStatus] = {}
        for job in self._api.list("Job", labels):
            if key := _key(job):
                one = found.get(key, AttemptStatus(*key))
                found[key] = replace(one, jobs=(*one.jobs, job))
        for pod in self._api.list("Pod", labels):
            if key := _key(pod):
                one = found.get(key, AttemptStatus(*key))
                found[key] = replace(one, pods=(*one.pods, pod))
        return {key: self._with_job(one) for key, one in found.items()}

    def _with_job(self, found: AttemptStatus) -> AttemptStatus:
        if found.job is not None or not any(map(_is_own, found.pods)):
            return found
        job = self._api.read("Job", names.job_name(*found.key))
        return replace(found, jobs=(*found.jobs, job)) if job and _key(job) == found.key else found

    def events(self) -> list[Object]:
        """List the namespace's events; none if the account may not list them."""
        try:
            return [*self._api.list("Event")]
        except ClusterError as error:
            if error.code == "Forbidden":
                return []
            raise

    def stop(self, found: AttemptStatus, now: datetime) -> None:
        """Delete all Jobs and pods of an attempt; repeating it does no harm.

        The Jobs are deleted first, so that they create no further pods. A pod that exists some
        seconds after its grace period is deleted by force: it may be stuck, or on a lost node.
        """
        for job in found.jobs:
            if not objects.is_deleted(job):
                self._api.delete("Job", objects.name_of(job), uid=_uid(job))
        for pod in found.pods:
            if objects.is_overdue(pod, now):
                self._api.delete("Pod", objects.name_of(pod), grace_seconds=0, uid=_uid(pod))
            elif not objects.is_deleted(pod):
                self._api.delete("Pod", objects.name_of(pod), uid=_uid(pod))

    def gone(self, found: AttemptStatus) -> bool:
        """Observe again whether nothing of the attempt is active."""
        now = self.find(found.flow_run_id).get(found.key)
        return now is None or not now.is_active

    def others(self, flow_run_id: str, attempt: int) -> list[AttemptStatus]:
        """Observe other attempts of the run that are still active."""
        found = self.find(flow_run_id).values()
        return [one for one in found if one.attempt != attempt and one.is_active]

    def last_lines(
        self, found: AttemptStatus, most: int = LAST_LINES, *, pod: str = "", container: str = ""
    ) -> list[str]:
        """Read the last log lines of the container that failed; none if its log is gone.

        Args:
            found: The attempt.
            most: The maximum number of lines.
            pod: The pod's name; by default the first pod that failed.
            container: The container's name; by default the first that failed.
        """
        candidates = [one for one in found.own_pods if pod in {"", objects.name_of(one)}]
        candidates.sort(key=lambda one: (not _failed_containers(one), objects.index_of(one)))
        for one in candidates[:1]:
            name = container or next(iter(_failed_containers(one)), manifests.CONTAINER)
            text = self._api.log(objects.name_of(one), name, lines=most)
            return (text or _message(one, name)).splitlines()[-most:]
        return []


def _key(thing: Object) -> Key | None:
    attempt = objects.label(thing, names.ATTEMPT)
    run = objects.label(thing, names.FLOW_RUN)
    return (run, int(attempt)) if run and attempt.isdecimal() else None


def _terminated(pod: Object) -> Iterable[tuple[str, Object]]:
    for container in objects.containers_of(pod):
        over = (container.get("state") or {}).get("terminated")
        if over:
            yield str(container.get("name", "")), over


def _failed_containers(pod: Object) -> list[str]:
    """Names of a pod's failed containers."""
    return [name for name, over in _terminated(pod) if over.get("exitCode")]


def _message(pod: Object, container: str) -> str:
    """Termination message of a container, which is the end of its log."""
    return next((str(o.get("message") or "") for n, o in _terminated(pod) if n == container), "")
