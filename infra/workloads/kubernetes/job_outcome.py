"""Exit status of a workload, from its Job and pods."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from infra.errors import BadInputError, ModelyardError, StackError
from infra.kubernetes import diagnosis, objects, termination
from infra.kubernetes.diagnosis import Diagnosis
from infra.workloads import exit_status as statuses
from infra.workloads.base import Sidecar, Workload
from infra.workloads.exit_status import ExitStatus
from infra.workloads.kubernetes.job_cache import ObservedJob
from infra.workloads.kubernetes.job_manifest import COMPONENT, STAGE_IN, STAGE_OUT
from infra.workloads.kubernetes.stage import UNREADABLE

_NO_PROGRAM = re.compile(
    r"not found|no such file|permission denied|is a directory|not executable", re.IGNORECASE
)
# Reasons of the kubelet for a container that did not begin.
_UNSTARTED = frozenset({"StartError", "ContainerCannotRun"})
_STAGES = {STAGE_IN: "brought", STAGE_OUT: "sent"}
# What kept a component from running at all; everything else is how it ended.
_NEVER_RAN = {
    diagnosis.IMAGE_PULL, diagnosis.UNSCHEDULABLE, diagnosis.CONFIG_INVALID,
    diagnosis.START_FAILED,
}  # fmt: skip


def state_of(pod: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    """A container's state: ``waiting``, ``running`` or ``terminated``; empty if unknown."""
    found: Mapping[str, Any] = objects.container_status(pod, container).get("state") or {}
    return found


def exit_status(pod: Mapping[str, Any]) -> int | None:
    """What the component ended with; negative: a signal. None if it has not ended."""
    over = state_of(pod, COMPONENT).get("terminated")
    if not over:
        return None
    return statuses.from_shell(int(over.get("exitCode") or 0))


def limit(seen: ObservedJob) -> float:
    """The seconds that a component's pod may take at most, as its manifest says."""
    found = [(pod.get("spec") or {}).get("activeDeadlineSeconds") for pod in seen.pods]
    return float(next((one for one in found if one), 0))


def decide(
    workload: Workload,
    seen: ObservedJob,
    events: Sequence[Mapping[str, Any]],
    now: datetime,
    tail: Sequence[str],
    said: Callable[[str, str], str],
) -> ExitStatus | None:
    """How a component ended; None if it has not.

    Args:
        workload: What was to be run.
        seen: Its Job and pods.
        events: Events of both.
        now: The current time.
        tail: The last lines of the workload's output.
        said: Reads the last lines of a pod's container.

    Raises:
        BadInputError: ``ProgramMissing``, if its image, or its sidecar's, does not have its
            program.
        StackError: ``StagingFailed``, if its files could not be carried.
        ModelyardError: If it never ran, with the category of the diagnosis as its code.
    """
    if seen.pods and objects.status_of(seen.pods[-1]).get("phase") == "Succeeded":
        return ExitStatus(0)
    if seen.pods and workload.sidecar:
        _check_sidecar(workload.sidecar, seen.pods[-1])
    found = termination.diagnose_termination(seen.job, seen.pods, events, now=now)
    if found is None and seen.job is None and not seen.pods:
        found = diagnosis.diagnose(diagnosis.GONE, "Its Job was deleted")
    if found is None:
        return None
    code = exit_status(seen.pods[-1]) if seen.pods else None
    if found.category == diagnosis.TIMEOUT:
        return statuses.timed_out(_bad(code), limit(seen))
    if found.container in _STAGES and found.category != diagnosis.OOM_KILLED:
        raise _not_staged(workload, seen, found, said)
    if found.category == diagnosis.SCRIPT_FAILED and code:
        return ExitStatus(code, statuses.reason(code, tail))
    if found.category == diagnosis.START_FAILED and _NO_PROGRAM.search(found.message):
        raise _no_program(workload.name, workload.image, workload.command)
    if found.category in _NEVER_RAN:
        raise never_ran(workload, found)
    return ExitStatus(_bad(code), f"{found.category}: {found.message} {found.hint}".strip())


def _bad(code: int | None) -> int:
    return code or -signal.SIGKILL


_STORAGE = (
    "Look after the storage that MODELYARD_PIPELINE_STAGING_URI names, and the credentials in the "
    "cluster's config_map and secret."
)
_READABLE = "Fix the component or its user as the message says, and retry the run."


def _not_staged(
    workload: Workload, seen: ObservedJob, found: Diagnosis, said: Callable[[str, str], str]
) -> StackError:
    """The error for files that could not be carried, with what their container said."""
    pod = seen.pods[-1]
    over = state_of(pod, found.container).get("terminated") or {}
    text = str(over.get("message") or "") or said(objects.name_of(pod), found.container)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else found.message
    return StackError(
        f"The files of {workload.name} could not be {_STAGES[found.container]}: {last}",
        _READABLE if last.startswith(UNREADABLE) else _STORAGE,
        code="StagingFailed",
    )


def never_ran(workload: Workload, found: Diagnosis) -> ModelyardError:
    """The error for a component that the cluster could not start."""
    kind = BadInputError if found.category == diagnosis.IMAGE_PULL else StackError
    return kind(f"{workload.name}: {found.message}", found.hint, code=found.category)


def _check_sidecar(sidecar: Sidecar, pod: Mapping[str, Any]) -> None:
    """Give up a sidecar that cannot be started, which Kubernetes would try for ever.

    Raises:
        BadInputError: ``ProgramMissing``, if its image does not have its program.
        StackError: ``StartFailed``, if there is another reason.
    """
    status = objects.container_status(pod, sidecar.name)
    for state in (status.get("state") or {}, status.get("lastState") or {}):
        over = state.get("terminated") or {}
        if over.get("reason") not in _UNSTARTED:
            continue
        message = str(over.get("message") or "")
        if _NO_PROGRAM.search(message):
            raise _no_program(sidecar.name, sidecar.image, sidecar.command)
        found = diagnosis.diagnose(
            diagnosis.START_FAILED, f"Its container {sidecar.name} could not be started: {message}"
        )
        raise StackError(found.message, found.hint, code=found.category)


def _no_program(name: str, image: str, command: Sequence[str]) -> BadInputError:
    program = next(iter(command), "its own program")
    return BadInputError(
        f"The image {image} of {name} has no program {program!r}.",
        "Fix the component's command, or its image.",
        code="ProgramMissing",
    )
