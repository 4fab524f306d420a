from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from infra.errors import BadInputError, ModelyardError
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.kubernetes import job_outcome
from infra.workloads.kubernetes.job_cache import ObservedJob
from tests.infra.workloads.kubernetes.shapes import SIDECAR, job

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_JOB = {"metadata": {"name": "my-job"}, "spec": {}, "status": {}}


def _over(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


_SAID = "a\nStorage: away\n"
_WELL = _over(0, "Completed")


def _pod(
    phase: str = "Failed", stage_in: Any = _WELL, component: Any = None, stage_out: Any = None,
    *, spec: Any = None, **status: Any,
) -> dict[str, Any]:  # fmt: skip
    def told(name: str, state: Any) -> dict[str, Any]:
        return {"name": name, "image": f"image-of-{name}", "state": state or {"waiting": {}}}

    return {
        "metadata": {"name": "my-job-x", "uid": "1"},
        "spec": {"nodeName": "node-a", **(spec or {})},
        "status": {
            "phase": phase,
            "initContainerStatuses": [told("stage-in", stage_in), told("component", component)],
            "containerStatuses": [told("stage-out", stage_out)],
            **status,
        },
    }


def _judged(pod: dict[str, Any] | None, job_there: bool = True) -> ExitStatus | None:
    seen = ObservedJob(_JOB if job_there else None, (pod,) if pod else ())
    return job_outcome.decide(job(), seen, [], _NOW, ["last words"], lambda *_: _SAID)


_SIDECAR = {"initContainers": [{"name": "server", "restartPolicy": "Always"}]}


def _beside(pod: dict[str, Any], **server: Any) -> dict[str, Any]:
    """A pod with a sidecar that is like this."""
    pod["spec"] |= _SIDECAR
    pod["status"]["initContainerStatuses"].insert(1, {"name": "server", **server})
    return pod


def _judged_beside(pod: dict[str, Any]) -> ExitStatus | None:
    seen = ObservedJob(_JOB, (pod,))
    workload = job(sidecar=SIDECAR)
    return job_outcome.decide(workload, seen, [], _NOW, ["last words"], lambda *_: _SAID)


def test_what_ends_a_sidecar_is_not_how_the_component_ended() -> None:
    ended = {"state": _over(137), "restartCount": 0}
    failed = _judged_beside(_beside(_pod(component=_over(3)), **ended))

    assert failed == ExitStatus(3, "It ended with exit status 3: last words")
    well = _pod("Succeeded", component=_WELL, stage_out=_WELL)
    assert _judged_beside(_beside(well, **ended)) == ExitStatus(0)


def test_a_sidecar_that_is_started_again_ends_nothing() -> None:
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    pod = _pod("Running", component={"running": {}})

    assert _judged_beside(_beside(pod, state=state, lastState=_over(1))) is None


@pytest.mark.parametrize("where", ["state", "lastState"])
@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        ('exec: "sh": executable file not found in $PATH', "ProgramMissing", "has no program"),
        ("no such device", "StartFailed", "server could not be started: no such device"),
    ],
)
def test_a_sidecar_that_cannot_be_started(where: str, message: str, code: str, said: str) -> None:
    pod = _beside(_pod("Pending"), **{where: _over(128, "StartError", message)})
    with pytest.raises(ModelyardError, match=said) as caught:
        _judged_beside(pod)
    assert caught.value.code == code


def test_it_ends_well_when_all_is_sent() -> None:
    running = {"running": {}}
    assert _judged(_pod("Running", component=_WELL, stage_out=running)) is None
    assert _judged(_pod("Succeeded", component=_WELL, stage_out=_WELL)) == ExitStatus(0)


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        (3, ExitStatus(3, "It ended with exit status 3: last words")),
        (143, ExitStatus(-15, "It ended with signal SIGTERM: last words")),
        (
            137,
            ExitStatus(
                -9, "It ended with signal SIGKILL (perhaps for want of memory): last words"
            ),
        ),
    ],
)
def test_what_a_component_ends_with(code: int, ended: ExitStatus) -> None:
    assert _judged(_pod(component=_over(code))) == ended


@pytest.mark.parametrize(
    ("pod", "begins"),
    [
        (_pod(component=_over(137, "OOMKilled")), "OOMKilled: Its container component used more"),
        (_pod(reason="Evicted", message="low on disk"), "Evicted: Its node evicted its pod: low"),
        (
            _pod(
                conditions=[
                    {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
                ]
            ),
            "NodeLost: Its node is gone.",
        ),
    ],
)
def test_what_befalls_it_is_named(pod: dict[str, Any], begins: str) -> None:
    ended = _judged(pod)

    assert ended is not None
    assert ended.code == -9
    assert ended.reason.startswith(begins)


def test_the_cluster_s_own_time_limit() -> None:
    pod = _pod(reason="DeadlineExceeded", spec={"activeDeadlineSeconds": 5})

    assert _judged(pod) == ExitStatus(
        -9, "It did not end within its 5 seconds.", ExitCause.TIMED_OUT
    )


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "sh": executable file not found in $PATH', "ProgramMissing"),
        ("exec: /bin/x: permission denied", "ProgramMissing"),
        ("the runtime has a bad day", "StartFailed"),
    ],
)
def test_a_program_that_cannot_be_started(message: str, code: str) -> None:
    with pytest.raises(ModelyardError) as caught:
        _judged(_pod(component=_over(128, "StartError", message)))
    assert caught.value.code == code
    if code == "ProgramMissing":
        assert "The image python:3.11 of train has no program 'sh'." in caught.value.message


def test_an_image_that_can_be_none() -> None:
    waiting = {"waiting": {"reason": "InvalidImageName", "message": "invalid reference format"}}
    with pytest.raises(BadInputError, match="image-of-component cannot be pulled") as caught:
        _judged(_pod("Pending", component=waiting))
    assert caught.value.code == "ImagePull"


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (
            _pod(stage_in=_over(3, message="line\nNotFound: There is nothing at s3://b/x.\n")),
            "The files of train could not be brought: NotFound: There is nothing at s3://b/x.",
        ),
        (
            _pod(component=_WELL, stage_out=_over(3, message="Disk: full")),
            "The files of train could not be sent: Disk: full",
        ),
        (
            _pod(stage_in=_over(1)),
            "The files of train could not be brought: Storage: away",
        ),
    ],
)
def test_files_that_could_not_be_carried(pod: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelyardError) as caught:
        _judged(pod)
    assert caught.value.code == "StagingFailed"
    assert caught.value.message == said


def test_a_job_that_somebody_has_deleted() -> None:
    ended = _judged(None, job_there=False)

    assert ended is not None
    assert ended.reason.startswith("Gone: Its Job was deleted.")
    assert _judged(None) is None  # its pod is still to be made
