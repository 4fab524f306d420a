"""The life of a pod on its node, from its volumes to its last word."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.cluster import environment, pod_status, volumes
from tests.cluster.containers import Container
from tests.cluster.environment import Facts
from tests.cluster.processes import Holder
from tests.cluster.quantities import quantity
from tests.cluster.store import now
from tests.cluster.volumes import MountError, Volumes

if TYPE_CHECKING:
    from tests.cluster.kubelet import Kubelet

_log = logging.getLogger(__name__)
_OVER = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Ending:
    """Why a pod ends that would have gone on."""

    reason: str = ""
    message: str = ""
    conditions: tuple[Mapping[str, Any], ...] = field(default=())


def disruption(reason: str, message: str) -> dict[str, Any]:
    """The condition of a pod that somebody else than its own processes has ended."""
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


def _say_if_broken(task: asyncio.Task[None]) -> None:
    """Let nobody wait for a pod whose node has a fault of its own without a word."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s is broken", task.get_name(), exc_info=error)


class PodRun:
    """One pod on a node."""

    def __init__(self, kubelet: Kubelet, pod: Mapping[str, Any]) -> None:
        self.kubelet = kubelet
        self.pod: dict[str, Any] = copy.deepcopy(dict(pod))
        meta = self.pod["metadata"]
        self.spec: dict[str, Any] = self.pod["spec"]
        self.namespace, self.name, self.uid = meta["namespace"], meta["name"], meta["uid"]
        self.key = f"{self.name}_{self.namespace}({self.uid})"
        self.folder = kubelet.folder / "pods" / self.uid
        self.hostname = self.spec.get("hostname") or self.name[:63].rstrip("-.")
        self.address = kubelet.addresses.of_pod(self.pod)
        self.volumes = Volumes()
        self.holder: Holder | None = None
        self.stop = asyncio.Event()
        self.killing = False
        self.ending: Ending | None = None
        self.over = ""
        self._started = (self.pod.get("status") or {}).get("startTime") or now()
        self._sandbox = False
        self._kill: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._sidecars: list[asyncio.Task[None]] = []
        self.starting = [
            Container(self, one, "sidecar" if one.get("restartPolicy") == "Always" else "init")
            for one in self.spec.get("initContainers") or []
        ]
        self.mains = [Container(self, one, "main") for one in self.spec["containers"]]
        self._is_limited = any(
            (one.get("emptyDir") or {}).get("sizeLimit") for one in self.spec.get("volumes") or []
        ) or any(
            "ephemeral-storage" in ((one.get("resources") or {}).get("limits") or {})
            for one in self.spec["containers"]
        )
        self.task = asyncio.create_task(self._run(), name=f"pod {self.key}")
        self.task.add_done_callback(_say_if_broken)

    @property
    def every(self) -> list[Container]:
        return [*self.starting, *self.mains]

    def facts(self) -> Facts:
        node = self.kubelet
        services = dict(node.service_environment)
        if self.spec.get("enableServiceLinks", True):
            found = node.store.list("Service", self.namespace)
            services |= environment.service_variables(found)
        return Facts(self.address, node.address, node.name, node.allocatable, services)

    def look_up(self, kind: str, name: str) -> Mapping[str, Any] | None:
        return self.kubelet.store.find(kind, self.namespace, name)

    def pull_secrets(self) -> Iterable[Mapping[str, Any]]:
        """The secrets that the pod, or else its service account, names for registries."""
        named = self.spec.get("imagePullSecrets")
        if not named:
            account = self.look_up(
                "ServiceAccount", self.spec.get("serviceAccountName", "default")
            )
            named = (account or {}).get("imagePullSecrets") or []
        for one in named:
            if found := self.look_up("Secret", one["name"]):
                yield found

    def own_mounts(self) -> list[dict[str, Any]]:
        """What a container sees without asking for it."""
        made = [{"path": "/etc/hosts", "source": str(self.folder / "hosts"), "readonly": False}]
        account = self.folder / "account"
        if account.exists():
            path = "/var/run/secrets/kubernetes.io/serviceaccount"
            made.append({"path": path, "source": str(account), "readonly": True})
        return made

    def tell(self, reason: str, message: str, kind: str = "Normal", part: str = "") -> None:
        if self.kubelet.online:
            self.kubelet.teller.tell(self.pod, reason, message, kind, part)

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than the pod may go on."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), seconds)

    async def _run(self) -> None:
        self.publish()
        seconds = self.spec.get("activeDeadlineSeconds")
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self._too_late)
        try:
            if await self.kubelet.assign(self) and await self._set_up() and await self._start():
                await asyncio.gather(*(one.live() for one in self.mains))
            await self._retire()
        finally:
            await self._clean_up()
        self._finish()

    def _too_late(self) -> None:
        told = "Pod was active on the node longer than the specified deadline"
        self.tell("DeadlineExceeded", told)
        self.end(Ending("DeadlineExceeded", told), self.grace)

    @property
    def grace(self) -> float:
        """Seconds between the two signals that end the pod's containers."""
        return float(self.spec.get("terminationGracePeriodSeconds", 30))

    async def _set_up(self) -> bool:
        """Have volumes, an address and a host's file; whether the containers may start."""
        while not self.stop.is_set():
            try:
                self.volumes = volumes.make(
                    self.pod, self.folder / "volumes", self.facts(), self.kubelet.outside(self)
                )
                break
            except MountError as error:
                self.tell("FailedMount", str(error), "Warning")
            await self.pause(self.kubelet.timing.back_off)
        else:
            return False
        if self.volumes.memory:
            self.holder = await Holder.start(self.volumes.memory)
        self._give_account()
        self.write_hosts()
        self._sandbox = True
        self.publish()
        return not self.stop.is_set()

    def _give_account(self) -> None:
        automatic = self.spec.get("automountServiceAccountToken", True)
        if self.kubelet.account_files is None or not automatic:
            return
        name = self.spec.get("serviceAccountName", "default")
        folder = self.folder / "account"
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in self.kubelet.account_files(self.namespace, name).items():
            (folder / file).write_bytes(content)

    def write_hosts(self) -> None:
        """Write what the pod's containers resolve names by, in the place that they see."""
        path = self.folder / "hosts"
        text = self.kubelet.hosts(self)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text() == text:
            return
        with path.open("r+" if path.exists() else "w") as file:
            file.write(text)
            file.truncate()

    async def _start(self) -> bool:
        """Run the containers that start the pod, one after the other."""
        for one in self.starting:
            if one.kind == "init":
                await one.live()
                if one.exit_code != 0:
                    return False
                continue
            self._sidecars.append(asyncio.create_task(one.live()))
            while not one.is_running:
                if self.stop.is_set():
                    return False
                await self.pause(0.02)
        for one in self.mains:
            one.state = {"waiting": {"reason": "ContainerCreating"}}
        return not self.stop.is_set()

    async def _retire(self) -> None:
        """Start nothing more, and end the sidecars: nothing is left that they would serve."""
        self.stop.set()
        if not self._sidecars:
            return
        for one in self.starting:
            one.ask_to_end()
        _, late = await asyncio.wait(self._sidecars, timeout=self.grace)
        for one in self.starting:
            one.end()
        if late:
            await asyncio.wait(late)

    def end(self, ending: Ending | None, grace: float) -> None:
        """End the pod: its containers are asked to, and made to after ``grace`` seconds."""
        self.ending = self.ending or ending
        if not self.stop.is_set():
            self.stop.set()
            for one in self.every:
                if one.kind != "sidecar" or not self._any_main():
                    one.ask_to_end()
        loop = asyncio.get_running_loop()
        at = loop.time() + grace
        if self._kill is None or at < self._kill.when():
            if self._kill is not None:
                self._kill.cancel()
            self._kill = loop.call_later(max(0.0, grace), self.kill)

    def _any_main(self) -> bool:
        return any(one.running for one in self.mains)

    def kill(self, cause: str = "", code: int | None = None) -> None:
        """End all that runs of it, now, and start nothing more."""
        self.stop.set()
        self.killing = True
        for one in self.every:
            if one.running is not None:
                one.end(cause, code)

    async def _clean_up(self) -> None:
        for timer in (self._kill, self._deadline):
            if timer is not None:
                timer.cancel()
        for one in self.every:
            one.end()
        if self.holder is not None:
            await self.holder.stop()
            self.holder = None

    def _finish(self) -> None:
        for one in self.every:
            one.never_was()
        self._sandbox = False
        phase = pod_status.phase("Never", self.every)
        self.over = "Failed" if self.ending and self.ending.reason else phase
        if self.over not in _OVER:
            self.over = "Failed"
        self.kubelet.release(self)
        self.publish()
        self.kubelet.finished(self)

    def status(self) -> dict[str, Any]:
        """What the API is told of the pod."""
        found = self.kubelet.store.find("Pod", self.namespace, self.name)
        known = (found or self.pod).get("status") or {}
        policy = self.spec.get("restartPolicy", "Always")
        phase = self.over or pod_status.phase(policy, self.every)
        if not self.over and phase in _OVER:
            phase = "Running" if self._sandbox else "Pending"  # its last containers are ending
        told: dict[str, Any] = {
            "phase": phase,
            "conditions": pod_status.conditions(
                known.get("conditions") or [],
                phase,
                self.every,
                sandbox=self._sandbox,
                extra=self.ending.conditions if self.ending else (),
            ),
            "hostIP": self.kubelet.address,
            "hostIPs": [{"ip": self.kubelet.address}],
            "startTime": self._started,
            "qosClass": pod_status.quality(self.spec),
            "containerStatuses": [one.status() for one in self.mains],
        }
        if self._sandbox or self.over:
            told |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        if self.starting:
            told["initContainerStatuses"] = [one.status() for one in self.starting]
        if self.ending and self.ending.reason:
            told |= {"reason": self.ending.reason, "message": self.ending.message}
        return copy.deepcopy(told)

    def publish(self) -> None:
        """Tell the API how the pod is, as far as the node can be heard."""
        self.kubelet.report(self)

    def storage(self) -> str:
        """Why the pod has more on its node than it may have; "" where it has not."""
        if not self._is_limited:
            return ""
        by_name = {
            one["name"]: one.get("emptyDir") or {} for one in self.spec.get("volumes") or []
        }
        total = 0
        for name, folder in self.volumes.counted.items():
            size = volumes.used(folder)
            total += size
            limit = by_name[name].get("sizeLimit")
            if limit is not None and size > quantity(limit):
                return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
        limits = []
        for one in self.mains:
            size = volumes.used(self.folder / "containers" / one.name)
            size += volumes.used(self.folder / "logs" / one.name)
            total += size
            limit = ((one.spec.get("resources") or {}).get("limits") or {}).get(
                "ephemeral-storage"
            )
            if limit is None:
                continue
            limits.append(limit)
            if size > quantity(limit):
                return (
                    f'Container {one.name} exceeded its local ephemeral storage limit "{limit}". '
                )
        if len(limits) == len(self.mains) and total > sum(quantity(one) for one in limits):
            allowed = limits[0] if len(limits) == 1 else str(int(sum(map(quantity, limits))))
            told = "Pod ephemeral local storage usage exceeds the total limit of containers"
            return f"{told} {allowed}. "
        return ""
