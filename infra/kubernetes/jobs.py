"""Runs as Jobs of a cluster: started, found again, stopped, and what their containers wrote.

A run's attempt has one Job, whose name is made of both, so that a second one cannot be. All that
belongs to an attempt is found by its labels, also what a pipeline's components have made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from infra.kubernetes import manifests, names, objects
from infra.kubernetes.api import Api
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.objects import Object
from infra.kubernetes.refusals import ClusterError
from infra.kubernetes.wanted import Wanted

LAST_LINES = 500

# The id of a flow run and the number of its attempt.
Key = tuple[str, int]


@dataclass(frozen=True)
class Found:
    """What a cluster has of an attempt of a run.

    Attributes:
        flow_run_id: The run.
        attempt: The number of its attempt.
        jobs: Its Jobs: its own, and those of a pipeline's components.
        pods: Their pods.
        past: Pods of its own Job that are gone, as they were last seen.
    """

    flow_run_id: str
    attempt: int
    jobs: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    past: tuple[Object, ...] = ()

    @property
    def key(self) -> Key:
        """The run and the attempt."""
        return self.flow_run_id, self.attempt

    @property
    def job(self) -> Object | None:
        """Its own Job; None if it is gone."""
        return next(filter(_is_own, self.jobs), None)

    @property
    def own_pods(self) -> tuple[Object, ...]:
        """The pods of its own Job, also those that are gone."""
        return (*filter(_is_own, self.pods), *self.past)

    @property
    def going(self) -> bool:
        """Whether anything of it runs, or may run yet."""
        return not (all(map(objects.finished, self.jobs)) and all(map(objects.ended, self.pods)))

    def remembering(self, before: Found | None) -> Found:
        """The same with the pods that it had before and has no more.

        What a pod died of is told by the pod, which may go within a second of its end.
        """
        if before is None:
            return self
        there = {_uid(pod) for pod in self.pods}
        gone = [pod for pod in before.own_pods if _uid(pod) not in there]
        return replace(self, past=tuple(map(_as_gone, gone)))


def _is_own(thing: Object) -> bool:
    return objects.label(thing, names.PART) != "component"


def _uid(thing: Object) -> str:
    return str(objects.metadata_of(thing).get("uid", ""))


def _as_gone(pod: Object) -> Object:
    if objects.ended(pod):
        return pod
    metadata = objects.metadata_of(pod)
    return {
        **pod,
        "metadata": {"deletionTimestamp": metadata.get("creationTimestamp"), **metadata},
        "status": {**objects.status_of(pod), "phase": "Failed"},
    }


class Jobs:
    """The Jobs of a cluster's namespace that are runs of ours.

    Every method raises ``ClusterError``. Calls block: in an event loop they belong in a thread.
    """

    def __init__(self, api: Api, cluster: Cluster) -> None:
        self._api = api
        self._cluster = cluster

    def start(self, wanted: Wanted) -> str:
        """Make the attempt's Job, and the Service of its nodes; the Job's name.

        One that is there already, since the answer to an earlier request was lost, is taken.

        Raises:
            ClusterError: If the cluster refuses, or does not answer.
            BadInputError: If the cluster has not what is wanted.
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

    def find(self, flow_run_id: str = "") -> dict[Key, Found]:
        """What the cluster has of every attempt of every run, or of one run.

        It is one list of Jobs and one of pods, however many runs there are. The Jobs come first:
        a Job that ends in between is then seen with its pods' end, never without it. One that is
        made in between is seen by its pods, and read by its name.
        """
        labels = {**names.OURS, **({names.FLOW_RUN: flow_run_id} if flow_run_id else {})}
        found: dict[Key, Found] = {}
        for job in self._api.list("Job", labels):
            if key := _key(job):
                one = found.get(key, Found(*key))
                found[key] = replace(one, jobs=(*one.jobs, job))
        for pod in self._api.list("Pod", labels):
            if key := _key(pod):
                one = found.get(key, Found(*key))
                found[key] = replace(one, pods=(*one.pods, pod))
        return {key: self._with_job(one) for key, one in found.items()}

    def _with_job(self, found: Found) -> Found:
        if found.job is not None or not any(map(_is_own, found.pods)):
            return found
        job = self._api.read("Job", names.job(*found.key))
        return replace(found, jobs=(*found.jobs, job)) if job and _key(job) == found.key else found

    def events(self) -> list[Object]:
        """The events of the namespace, which say why a pod waits; none if it may not see them."""
        try:
            return [*self._api.list("Event")]
        except ClusterError as error:
            if error.code == "Forbidden":
                return []
            raise

    def stop(self, found: Found, now: datetime) -> None:
        """Ask for the end of all that the cluster has of an attempt; it may be asked again.

        The Jobs go first, so that nothing makes their pods anew. A pod that is still there some
        seconds after its grace is taken away at once: it may be stuck, or on a lost node.
        """
        for job in found.jobs:
            if not objects.is_deleted(job):
                self._api.delete("Job", objects.name_of(job), uid=_uid(job))
        for pod in found.pods:
            if objects.overdue(pod, now):
                self._api.delete("Pod", objects.name_of(pod), grace_seconds=0, uid=_uid(pod))
            elif not objects.is_deleted(pod):
                self._api.delete("Pod", objects.name_of(pod), uid=_uid(pod))

    def gone(self, found: Found) -> bool:
        """Whether the API server says that nothing of the attempt runs any more."""
        now = self.find(found.flow_run_id).get(found.key)
        return now is None or not now.going

    def others(self, flow_run_id: str, attempt: int) -> list[Found]:
        """Other attempts of the run of which something still runs."""
        found = self.find(flow_run_id).values()
        return [one for one in found if one.attempt != attempt and one.going]

    def last_lines(
        self, found: Found, most: int = LAST_LINES, *, pod: str = "", container: str = ""
    ) -> list[str]:
        """The last lines of the container that died; none where they are gone with it.

        Args:
            found: The attempt.
            most: How many lines at most.
            pod: Whose container; without, that of the first pod that ended badly.
            container: Which container; without, the first that ended badly.
        """
        candidates = [one for one in found.own_pods if pod in {"", objects.name_of(one)}]
        candidates.sort(key=lambda one: (not _bad(one), objects.index_of(one)))
        for one in candidates[:1]:
            name = container or next(iter(_bad(one)), manifests.CONTAINER)
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


def _bad(pod: Object) -> list[str]:
    """The containers of a pod that ended badly."""
    return [name for name, over in _terminated(pod) if over.get("exitCode")]


def _message(pod: Object, container: str) -> str:
    """What the pod itself tells of a container's end, which is the end of its log."""
    return next((str(o.get("message") or "") for n, o in _terminated(pod) if n == container), "")
