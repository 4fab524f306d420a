"""A run's pod as a real process, against a real Prefect and a real catalogue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling, Completed, Pending, Running

from modelyard import run_pod
from registry.runs import run_attempts
from tests import prefect_server
from tests.forwarder import Forwarder
from tests.modelyard import pod_flows
from tests.processes import eventually, pid_in, runs

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(prefect_api: str, database: None, tmp_path: Path) -> Iterator[Start]:
    """Starts a run's pod."""
    started: list[subprocess.Popen[str]] = []

    def make(
        run: FlowRun, attempt: int = 1, uid: str = "pod-a", **more: str
    ) -> subprocess.Popen[str]:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PREFECT__FLOW_RUN_ID": str(run.id),
            "MODELYARD_ATTEMPT": str(attempt),
            "MODELYARD_POD_UID": uid,
            "MODELYARD_NODE": "0",
            pod_flows.FOLDER: str(tmp_path),
            **more,
        }
        pod = subprocess.Popen(
            [sys.executable, "-P", "-m", "modelyard.run_pod"],
            env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(pod)
        return pod

    yield make
    for pod in started:
        pod.kill()
        pod.communicate()


def granted(flow: str) -> FlowRun:
    """A run that a worker has made a Job of."""
    pool = prefect_server.Pool.made(f"tests.modelyard.pod_flows.{flow}", flow)
    run = pool.run()
    run_attempts.begin(str(run.id), str(run.state_id))
    prefect_server.set_state(run, Pending())
    return run


def ended(pod: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = pod.communicate(timeout=120)
    return pod.returncode, output


def test_it_becomes_the_engine_of_its_run(start: Start, tmp_path: Path) -> None:
    run = granted("quick")
    pod = start(run)

    status, output = ended(pod)

    assert status == 0, output
    assert prefect_server.state_of(run)[0] == "COMPLETED"
    assert int((tmp_path / "pid").read_text()) == pod.pid  # in the same process


def test_it_waits_for_a_prefect_that_is_being_started_anew(
    start: Start, prefect_api: str, tmp_path: Path
) -> None:
    run = granted("quick")
    with Forwarder(prefect_api) as prefect:
        pod = start(run, PREFECT_API_URL=prefect.url)
        assert pod.stdout is not None
        line = next(line for line in pod.stdout if line.startswith("Prefect does not answer"))
        assert "It is waited for, 600 s at most." in line

        prefect.open()
        status, output = ended(pod)

    assert status == 0, output
    assert prefect_server.state_of(run)[0] == "COMPLETED"


def test_a_deleted_pod_tidies_up_and_leaves_the_runs_end_to_others(
    start: Start, tmp_path: Path
) -> None:
    run = granted("slow")
    pod = start(run)
    script = pid_in(tmp_path / "script")
    eventually(lambda: prefect_server.state_of(run)[0] == "RUNNING", "it runs")

    pod.send_signal(signal.SIGTERM)
    status, output = ended(pod)

    assert status == 143, output
    assert (tmp_path / "tidied").exists()
    assert not runs(script)
    assert prefect_server.states(run)[-1] == StateType.RUNNING


def test_one_that_is_given_up_ends_at_once_and_leaves_all_to_the_newer(
    start: Start, tmp_path: Path
) -> None:
    run = granted("slow")
    pod = start(run)
    script = pid_in(tmp_path / "script")
    eventually(lambda: prefect_server.state_of(run)[0] == "RUNNING", "it runs")

    run_attempts.begin(str(run.id), str(run.state_id))
    pod.wait(60)
    os.kill(script, signal.SIGKILL)  # which a leash, or the container's end, does elsewhere
    status, output = ended(pod)

    assert status == -signal.SIGKILL, output
    assert "newer attempt" in output
    assert not (tmp_path / "tidied").exists()
    assert prefect_server.states(run)[-1] == StateType.RUNNING


def test_one_that_is_deleted_at_its_start_ends_at_once(start: Start) -> None:
    run = granted("slow")
    pod = start(run)

    def heeds() -> bool:
        return bool(_caught(pod.pid) & 1 << (signal.SIGTERM - 1))

    eventually(heeds, "it has a handler")
    pod.send_signal(signal.SIGTERM)

    assert ended(pod)[0] == 143
    assert prefect_server.state_of(run)[0] == "PENDING"


def _caught(pid: int) -> int:
    """The signals that a process has handlers for."""
    told = Path(f"/proc/{pid}/status").read_text()
    return int(next(x for x in told.splitlines() if x.startswith("SigCgt")).split()[1], 16)


def test_a_second_pod_of_the_attempt_runs_nothing(start: Start, tmp_path: Path) -> None:
    run = granted("quick")
    assert run_attempts.claim(str(run.id), 1, "pod-b")

    status, output = ended(start(run))

    assert status == 0
    assert "Another pod executes attempt 1" in output
    assert prefect_server.state_of(run)[0] == "PENDING"
    assert not (tmp_path / "pid").exists()


def test_a_pod_of_an_older_attempt_runs_nothing(start: Start, tmp_path: Path) -> None:
    run = granted("quick")

    status, output = ended(start(run, attempt=0))

    assert status == 0
    assert "attempt is number 1, and this is of number 0" in output
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize(
    ("state", "attempt", "first", "words"),
    [
        (Pending(), 1, True, ""),
        (Pending(name="InfrastructurePending"), 1, True, ""),
        (Pending(), 1, False, ""),
        (Running(), 1, False, ""),
        (Running(), 1, True, "it is Running"),
        (Cancelling(), 1, True, "it is Cancelling"),
        (Completed(name="GoalReached"), 1, False, "it is GoalReached"),
        (Pending(), 2, True, "number 1, and this is of number 2"),
        (None, 1, True, "it is new"),
    ],
)
def test_refusals(state: object, attempt: int, first: bool, words: str) -> None:
    run = FlowRun.model_construct(state=state)

    refused = run_pod.refusal(run, 1, attempt, first=first)

    assert words in refused
    assert bool(words) is bool(refused)
