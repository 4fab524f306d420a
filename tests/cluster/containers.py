"""The life of one container of a pod: its image, its environment, its process, its restarts."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster import environment, volumes
from tests.cluster.environment import ConfigError
from tests.cluster.images import Image, InvalidImageName, PullError
from tests.cluster.pod_status import ContainerState
from tests.cluster.processes import Running, StartError, Wanted
from tests.cluster.quantities import quantity
from tests.cluster.store import now

if TYPE_CHECKING:
    from tests.cluster.pod_run import PodRun

_EPOCH = "1970-01-01T00:00:00Z"
_CRI = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: error during container init: "
)
# Of a message that a container leaves: bytes; and bytes and lines of its log in place of one.
_LONGEST_MESSAGE, _LONGEST_END, _MOST_LINES = 4096, 2048, 80
#: Exit codes of signals that end a container without a word of its own.
_KILLED = 128 + signal.SIGKILL


class Container(ContainerState):
    """A container of a pod on its node."""

    def __init__(self, pod: PodRun, spec: Mapping[str, Any], kind: str) -> None:
        waiting = "ContainerCreating"
        if pod.spec.get("initContainers"):
            waiting = "PodInitializing"
        super().__init__(spec["name"], spec["image"], kind, {"waiting": {"reason": waiting}})
        self.pod, self.spec = pod, spec
        self.devices: dict[str, list[int]] = {}
        self.running: Running | None = None
        self._cause = ""
        self._code: int | None = None

    async def live(self) -> None:
        """Run it until it is not to be started again, or its pod ends."""
        while not self._over():
            image = await self._image()
            if image is None:
                return
            wanted = await self._wanted(image)
            if wanted is None:
                return
            code = await self._once(wanted)
            if self._over() or not self._again(code):
                return
            await self._back_off()

    def _tell(self, reason: str, message: str, kind: str = "Normal") -> None:
        field = "containers" if self.kind == "main" else "initContainers"
        self.pod.tell(reason, message, kind, f"spec.{field}{{{self.name}}}")

    def _over(self) -> bool:
        return self.pod.stop.is_set()

    def _again(self, code: int) -> bool:
        policy = self.pod.spec.get("restartPolicy", "Always")
        if self.kind == "sidecar":
            return True
        return (policy == "Always" and self.kind == "main") or (policy != "Never" and code != 0)

    def end(self, cause: str = "", code: int | None = None) -> None:
        """Kill it now. ``cause`` and ``code`` are told in place of what a kill looks like."""
        self._cause, self._code = cause, code
        if self.running is not None:
            self.running.kill()

    def ask_to_end(self) -> None:
        """Send its first process what asks it to end."""
        if self.running is not None:
            self.running.signal(signal.SIGTERM)

    def _wait_for(self, reason: str, message: str = "") -> None:
        if self.exit_code is not None:
            self.last = self.state
        told = {"reason": reason} | ({"message": message} if message else {})
        self.state = {"waiting": told}
        self.pod.publish()

    async def _image(self) -> Image | None:
        """The image, as soon as it can be had; None where the pod ends before."""
        node, name = self.pod.kubelet, self.image
        policy = self.spec.get("imagePullPolicy") or (
            "Always" if name.endswith(":latest") or ":" not in name.split("/")[-1]
            else "IfNotPresent"
        )  # fmt: skip
        known = node.images.table.get(name)
        # What needed a login is asked for again: the pod may not have it.
        if known and not known.login and name in node.pulled and policy != "Always":
            self._tell("Pulled", f'Container image "{name}" already present on machine')
            return known
        delay = node.timing.back_off
        while not self.pod.stop.is_set():
            if policy == "Never":
                told = f'Container image "{name}" is not present with pull policy of Never'
                problem = ("ErrImageNeverPull", "ErrImageNeverPull", told)
            else:
                found, problem = await self._pull()
                if found is not None:
                    return found
            if self.pod.stop.is_set():
                return None
            first, then, message = problem
            if first != "ErrImagePull":
                self._tell(first, message, "Warning")
            self._tell("Failed", f"Error: {first}", "Warning")
            self._wait_for(first, message)
            await self.pod.pause(node.timing.tick)
            if then == "ImagePullBackOff" and not self.pod.stop.is_set():
                told = f'Back-off pulling image "{name}"'
                self._tell("BackOff", told)
                self._tell("Failed", f"Error: {then}", "Warning")
                self._wait_for(then, f"{told}: {first}: {message}")
            await self.pod.pause(delay)
            delay = min(delay * 2, node.timing.longest_back_off)
        return None

    async def _pull(self) -> tuple[Image | None, tuple[str, str, str]]:
        node, name = self.pod.kubelet, self.image
        self._tell("Pulling", f'Pulling image "{name}"')
        seconds = node.images.seconds(name)
        await self.pod.pause(seconds)
        if self.pod.stop.is_set():
            return None, ("", "", "")
        try:
            found = node.images.pull(name, self.pod.pull_secrets())
        except InvalidImageName as error:
            return None, ("InvalidImageName", "InvalidImageName", str(error))
        except PullError as error:
            self._tell("Failed", f'Failed to pull image "{name}": {error}', "Warning")
            return None, ("ErrImagePull", "ImagePullBackOff", str(error))
        node.pulled.add(name)
        self._tell(
            "Pulled",
            f'Successfully pulled image "{name}" in {seconds:.3g}s ({seconds:.3g}s including '
            "waiting). Image size: 1024 bytes.",
        )
        return found, ("", "", "")

    async def _wanted(self, image: Image) -> Wanted | None:
        """What is to be run, as soon as all of it is there; None where the pod ends before."""
        while not self.pod.stop.is_set():
            try:
                return self._configured(image)
            except ConfigError as error:
                self._tell("Failed", f"Error: {error}", "Warning")
                self._wait_for("CreateContainerConfigError", str(error))
            await self.pod.pause(self.pod.kubelet.timing.back_off)
        return None

    def _configured(self, image: Image) -> Wanted:
        pod, spec = self.pod, self.spec
        given = environment.variables(pod.pod, spec, pod.look_up, pod.facts())
        user, group, groups = self._identity(image)
        env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root" if not user else "/",
            "HOSTNAME": pod.hostname,
            **image.env,
            **self._device_variables(),
            **given,
        }
        self._last_words.parent.mkdir(exist_ok=True)
        self._last_words.touch()
        self._last_words.chmod(0o666)
        command = environment.command_line(spec, image.entrypoint, image.command, given)
        if not command:
            raise ConfigError("no command specified")
        return Wanted(
            command=command,
            env=env,
            hostname=pod.hostname,
            folder=pod.folder / "containers" / self.name / str(self.restarts),
            log=self.log_file(self.restarts),
            mounts=[
                *pod.own_mounts(),
                {
                    "path": spec.get("terminationMessagePath") or "/dev/termination-log",
                    "source": str(self._last_words),
                    "readonly": False,
                },
                *volumes.mounts(spec, pod.volumes, env),
            ],
            shm=volumes.SHARED_MEMORY,
            holder=pod.holder.pid if pod.holder else None,
            workdir=spec.get("workingDir") or image.workdir or "/",
            user=user if image.honour_user else None,
            group=group if image.honour_user else None,
            groups=groups,
            hidden=image.hides,
            held=image.holds,
            closed=self._closed(user),
            powerless="ALL" in self._capabilities("drop") and not self._capabilities("add"),
        )

    def _capabilities(self, what: str) -> list[str]:
        context = self.spec.get("securityContext") or {}
        return (context.get("capabilities") or {}).get(what) or []

    def _closed(self, user: int) -> list[str]:
        """What of its own root the container may not write to, were it the user asked for."""
        if (self.spec.get("securityContext") or {}).get("readOnlyRootFilesystem"):
            return ["/", "/tmp"]
        return ["/"] if user else []

    @property
    def _last_words(self) -> Path:
        """The file by which a container may say why it has ended."""
        return self.pod.folder / "messages" / f"{self.name}.{self.restarts}"

    def _message(self, code: int) -> str:
        """What the container has left as its last words; or the end of its log, if wanted."""
        text = self._last_words.read_bytes()[:_LONGEST_MESSAGE].decode(errors="replace")
        if text or not code:
            return text
        if self.spec.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        log = self.log_file(self.restarts)
        entries = log.read_bytes().splitlines()[-_MOST_LINES:] if log.exists() else []
        lines = [entry.split(b" ", 3)[3] for entry in entries]
        return b"\n".join([*lines, b""])[-_LONGEST_END:].decode(errors="replace")

    def _identity(self, image: Image) -> tuple[int, int, list[int]]:
        """The user, group and further groups that the manifest asks for."""
        whole, own = self.pod.spec.get("securityContext") or {}, self.spec.get(
            "securityContext") or {}  # fmt: skip
        context = {**whole, **own}
        user = context.get("runAsUser", image.user)
        if context.get("runAsNonRoot") and user == 0:
            raise ConfigError(
                "container has runAsNonRoot and image will run as root (pod: "
                f'"{self.pod.key}", container: {self.name})'
            )
        groups = list(whole.get("supplementalGroups") or [])
        if "fsGroup" in whole:
            groups.append(whole["fsGroup"])
        return user, context.get("runAsGroup", 0), groups

    def _device_variables(self) -> dict[str, str]:
        """What tells a container of the devices that it has."""
        numbers = self.devices.get("nvidia.com/gpu")
        if not numbers:
            return {}
        told = ",".join(str(one) for one in numbers)
        return {"NVIDIA_VISIBLE_DEVICES": told, "MODELYARD_GPUS": told}

    def log_file(self, restart: int) -> Path:
        """Where what it says is kept."""
        return self.pod.folder / "logs" / self.name / f"{restart}.log"

    async def _once(self, wanted: Wanted) -> int:
        """Run it once; its exit code."""
        self.container_id = f"containerd://{uuid.uuid4().hex}{uuid.uuid4().hex}"
        self.image_id = f"{self.image}@sha256:{uuid.uuid5(uuid.NAMESPACE_URL, self.image).hex * 2}"
        self._tell("Created", f"Created container: {self.name}")
        self._cause, self._code = "", None
        try:
            self.running = await Running.start(wanted)
        except StartError as error:
            message = f"{_CRI}{error}: unknown"
            self._tell("Failed", f"Error: {message}", "Warning")
            self._ended(128, "StartError", message, _EPOCH)
            return 128
        started = now()
        self.state = {"running": {"startedAt": started}}
        self._tell("Started", f"Started container {self.name}")
        if self.pod.killing:  # it was asked to end while it started
            self.end()
        elif self.pod.stop.is_set():
            self.ask_to_end()
        self.pod.publish()
        code = await self.running.wait()
        self.running = None
        code = self._code if self._code is not None else code
        reason = self._cause or ("Error" if code else "Completed")
        self._ended(code, reason, self._message(code), started)
        return code

    def _ended(self, code: int, reason: str, message: str, started: str) -> None:
        told: dict[str, Any] = {
            "exitCode": code,
            "reason": reason,
            "startedAt": started,
            "finishedAt": now(),
            "containerID": self.container_id,
        }
        if message:
            told["message"] = message
        self.state = {"terminated": told}
        self.pod.publish()

    def never_was(self) -> None:
        """Say how it ended, though it never began: its pod has ended."""
        if "waiting" in self.state:
            told = {
                "exitCode": _KILLED,
                "reason": "ContainerStatusUnknown",
                "message": "The container could not be located when the pod was terminated",
                "startedAt": None,
                "finishedAt": None,
            }
            self.state = {"terminated": told}

    async def _back_off(self) -> None:
        timing = self.pod.kubelet.timing
        delay = min(timing.back_off * 2**self.restarts, timing.longest_back_off)
        message = f"back-off {delay:g}s restarting failed container={self.name} pod={self.pod.key}"
        self._tell("BackOff", f"Back-off restarting failed container {self.name}", "Warning")
        self._wait_for("CrashLoopBackOff", message)
        await self.pod.pause(delay)
        if not self._over():
            self.restarts += 1

    @property
    def memory_limit(self) -> int:
        """Bytes that it may have; 0 without a limit."""
        limits = (self.spec.get("resources") or {}).get("limits") or {}
        return int(quantity(limits.get("memory", 0)))
