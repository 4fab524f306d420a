"""The Job controller: it makes the pods of Jobs, counts them, and says how the Jobs end."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.cluster import job_decisions
from tests.cluster.control_loop import ControlLoop
from tests.cluster.events import Teller
from tests.cluster.job_decisions import Tally, condition
from tests.cluster.pod_status import merged
from tests.cluster.store import Missing, Refusal, Store, now

_OVER = ("Complete", "Failed")
_ENDING = ("SuccessCriteriaMet", "FailureTarget")


@dataclass
class _Ledger:
    """What has been counted of a Job; pods that are gone stay counted."""

    succeeded: dict[str, int | None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """By uid: what the Job's policy does about it."""
    ended_by: str = ""
    failures: int = 0
    """Failed pods in a row, for the pause before the next."""
    not_before: float = 0.0


class JobController(ControlLoop):
    """Looks at a Job whenever it or one of its pods has changed."""

    def __init__(self, store: Store, back_off: float = 0.1) -> None:
        super().__init__()
        self._store = store
        self._back_off = back_off
        self._teller = Teller(store, "job-controller")
        self._ledgers: dict[str, _Ledger] = {}

    async def _go_on(self) -> None:
        async for change, kind, obj in self._store.watch(("Job", "Pod")):
            meta = obj["metadata"]
            if kind == "Job":
                if change == "DELETED":
                    self._ledgers.pop(meta["uid"], None)
                else:
                    self._look(meta["namespace"], meta["name"])
                continue
            owner = _owner(obj)
            if owner is not None:
                if change == "DELETED":
                    self._gone(owner, obj)
                self._look(meta["namespace"], owner["name"])

    def _gone(self, owner: Mapping[str, Any], pod: Mapping[str, Any]) -> None:
        """Count a pod that is no more, as it was in the end."""
        job = self._store.find("Job", pod["metadata"]["namespace"], owner["name"])
        if job is None or job["metadata"]["uid"] != owner["uid"]:
            return
        self._count(job, self._ledger(job), job_decisions.tally(pod), gone=True)

    def _ledger(self, job: Mapping[str, Any]) -> _Ledger:
        return self._ledgers.setdefault(job["metadata"]["uid"], _Ledger())

    def _later(self, namespace: str, name: str, seconds: float) -> None:
        key = (namespace, name)
        if key in self._due:
            self._due[key].cancel()
        loop = asyncio.get_running_loop()
        self._due[key] = loop.call_later(max(0.0, seconds), self._look, namespace, name)

    def _look(self, namespace: str, name: str) -> None:
        job = self._store.find("Job", namespace, name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            return
        if condition(job, *_OVER):
            self._forget_when_due(job)
            return
        pods = [
            job_decisions.tally(copy.deepcopy(pod))
            for pod in self._store.each("Pod", namespace)
            if (_owner(pod) or {}).get("uid") == job["metadata"]["uid"]
        ]
        ledger = self._ledger(job)
        for one in pods:
            self._count(job, ledger, one)
        _Look(self, job, ledger, pods).act()

    def _count(
        self, job: Mapping[str, Any], ledger: _Ledger, one: Tally, gone: bool = False
    ) -> None:
        if one.uid in ledger.succeeded or one.uid in ledger.failed:
            return
        if one.phase == "Succeeded":
            ledger.succeeded[one.uid] = one.index
            ledger.failures = 0
            return
        lost = gone or (one.deleting and not job_decisions.replaces_late(job))
        if one.phase != "Failed" and not lost:
            return
        if condition(job, *_ENDING, "Suspended"):
            action = "Ignore"
        else:
            action, told = job_decisions.policy_for(job, one.pod)
            if action == "FailJob":
                ledger.ended_by = ledger.ended_by or told
        ledger.failed[one.uid] = action
        if action in ("Count", "FailJob"):
            delay = self._back_off * 2**ledger.failures
            ledger.failures += 1
            ledger.not_before = time.monotonic() + min(delay, 5.0)

    def _forget_when_due(self, job: Mapping[str, Any]) -> None:
        """Delete a Job that has ended long enough ago."""
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        ended = condition(job, *_OVER)
        if seconds is None or ended is None:
            return
        meta = job["metadata"]
        left = seconds - _age(ended["lastTransitionTime"])
        if left <= 0:
            with contextlib.suppress(Missing):
                self._store.delete("Job", meta["namespace"], meta["name"], uid=meta["uid"])
        else:
            self._later(meta["namespace"], meta["name"], left)


class _Look:
    """One look at one Job."""

    def __init__(
        self, controller: JobController, job: dict[str, Any], ledger: _Ledger, pods: list[Tally]
    ) -> None:
        self.of, self.job, self.ledger, self.pods = controller, job, ledger, pods
        self.store, self.teller = controller._store, controller._teller
        self.spec, self.meta = job["spec"], job["metadata"]
        self.status: dict[str, Any] = dict(job.get("status") or {})
        self.active = [one for one in pods if one.is_active]
        self.ending = [one for one in pods if one.deleting and not one.is_over]

    def act(self) -> None:
        if self.spec.get("suspend"):
            self._suspend()
        else:
            self._resume()
            self._judge()
            if condition(self._job_now(), *_ENDING):
                self._delete(self.active)
                self._conclude()
            else:
                self._keep_up()
        self._write()

    def _job_now(self) -> dict[str, Any]:
        return {**self.job, "status": self.status}

    def _say(self, kind: str, reason: str, message: str, status: str = "True") -> None:
        moment = {"lastProbeTime": now()}
        told = {"type": kind, "status": status, "reason": reason, "message": message, **moment}
        self.status["conditions"] = merged(self.status.get("conditions") or [], [told])

    def _suspend(self) -> None:
        if condition(self._job_now(), "Suspended") is None:
            self._say("Suspended", "JobSuspended", "Job suspended")
            self.teller.tell(self.job, "Suspended", "Job suspended")
        self.status.pop("startTime", None)
        self._delete(self.active)

    def _resume(self) -> None:
        if condition(self._job_now(), "Suspended"):
            self._say("Suspended", "JobResumed", "Job resumed", "False")
            self.teller.tell(self.job, "Resumed", "Job resumed")
        self.status.setdefault("startTime", now())

    @property
    def _failed(self) -> int:
        return sum(action != "Ignore" for action in self.ledger.failed.values())

    @property
    def _restarts(self) -> int:
        if self.spec["template"]["spec"].get("restartPolicy") != "OnFailure":
            return 0
        return sum(
            one["restartCount"]
            for tally in self.active
            for key in ("initContainerStatuses", "containerStatuses")
            for one in (tally.pod.get("status") or {}).get(key) or []
        )

    @property
    def _indexes(self) -> set[int]:
        count = self.spec.get("completions") or 0
        done = {index for index in self.ledger.succeeded.values() if index is not None}
        return {index for index in done if index < count}

    def _is_complete(self) -> bool:
        wanted = self.spec.get("completions")
        if job_decisions.is_indexed(self.job):
            return len(self._indexes) >= (wanted or 0)
        if wanted is None:  # the first success ends a queue of work, when the others are done
            return bool(self.ledger.succeeded) and not self.active and not self.ending
        return len(self.ledger.succeeded) >= wanted

    def _judge(self) -> None:
        """Say so if the Job is to end."""
        if condition(self._job_now(), *_ENDING):
            return
        if self.ledger.ended_by:
            self._fail("PodFailurePolicy", self.ledger.ended_by)
            return
        limit = self.spec.get("backoffLimit", 6)
        deadline = self.spec.get("activeDeadlineSeconds")
        if self._failed > limit or (self._restarts > limit and self._restarts):
            self._fail("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif deadline is not None and _age(self.status["startTime"]) >= deadline:
            self._fail("DeadlineExceeded", "Job was active longer than specified deadline")
        elif told := job_decisions.succeeds(self.job, self._indexes):
            self._say("SuccessCriteriaMet", "SuccessPolicy", told)
        elif self._is_complete():
            told = "Reached expected number of succeeded pods"
            self._say("SuccessCriteriaMet", "CompletionsReached", told)
        elif deadline is not None:
            left = deadline - _age(self.status["startTime"])
            self.of._later(self.meta["namespace"], self.meta["name"], max(left, 0.1))

    def _fail(self, reason: str, message: str) -> None:
        self._say("FailureTarget", reason, message)

    def _conclude(self) -> None:
        """Say the last word, when no pod is left that could do anything."""
        if self.active or self.ending:
            return
        met = condition(self._job_now(), "SuccessCriteriaMet")
        if met is not None:
            self._say("Complete", met["reason"], met["message"])
            self.status["completionTime"] = now()
            self.teller.tell(self.job, "Completed", "Job completed")
            return
        why = condition(self._job_now(), "FailureTarget")
        assert why is not None
        self._say("Failed", why["reason"], why["message"])
        self.teller.tell(self.job, why["reason"], why["message"], "Warning")

    def _delete(self, pods: list[Tally]) -> None:
        for one in pods:
            with contextlib.suppress(Missing):
                self.store.delete("Pod", self.meta["namespace"], one.name, uid=one.uid)
                self.teller.tell(self.job, "SuccessfulDelete", f"Deleted pod: {one.name}")
        if pods:
            self.active, self.ending = [], [*self.ending, *pods]

    def _keep_up(self) -> None:
        """Have as many pods as the Job wants."""
        wanted = self._wanted()
        if len(self.active) > self.spec.get("parallelism", 1):
            self._delete(self.active[self.spec.get("parallelism", 1) :])
            return
        if not wanted:
            return
        left = self.ledger.not_before - time.monotonic()
        if left > 0:
            self.of._later(self.meta["namespace"], self.meta["name"], left)
            return
        for index in wanted:
            pod = job_decisions.new_pod(self.job, index)
            try:
                made = self.store.create("Pod", pod)
            except Refusal as refusal:
                told = f"Error creating: {refusal}"
                self.teller.tell(self.job, "FailedCreate", told, "Warning")
                self.of._later(self.meta["namespace"], self.meta["name"], 0.5)
                return
            name = made["metadata"]["name"]
            self.teller.tell(self.job, "SuccessfulCreate", f"Created pod: {name}")
            self.active.append(job_decisions.tally(made))

    def _wanted(self) -> list[int | None]:
        """The pods that are missing, by their indexes."""
        parallelism = self.spec.get("parallelism", 1)
        keeping = [*self.active]
        if job_decisions.replaces_late(self.job):
            keeping += self.ending
        room = parallelism - len(keeping)
        completions = self.spec.get("completions")
        if job_decisions.is_indexed(self.job):
            taken = {one.index for one in keeping} | self._indexes
            free = [index for index in range(completions or 0) if index not in taken]
            return list(free[: max(0, room)])
        if completions is None:
            return [] if self.ledger.succeeded else [None] * max(0, room)
        left = completions - len(self.ledger.succeeded) - len(keeping)
        return [None] * max(0, min(room, left))

    def _write(self) -> None:
        self.status |= {
            "active": len(self.active),
            "ready": sum(one.ready for one in self.active),
            "terminating": len(self.ending),
            "succeeded": len(self._indexes) if job_decisions.is_indexed(self.job)
            else len(self.ledger.succeeded),
            "failed": self._failed,
            "uncountedTerminatedPods": {},
        }  # fmt: skip
        for name in ("active", "succeeded", "failed"):
            if not self.status[name]:
                del self.status[name]
        if job_decisions.is_indexed(self.job) and self._indexes:
            self.status["completedIndexes"] = job_decisions.written(self._indexes)
        with contextlib.suppress(Missing):
            self.store.set_status("Job", self.meta["namespace"], self.meta["name"], self.status)


def _owner(pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for one in pod["metadata"].get("ownerReferences") or []:
        if one.get("controller") and one["kind"] == "Job":
            return dict(one)
    return None


def _age(moment: str) -> float:
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return (datetime.now(UTC) - then).total_seconds()
