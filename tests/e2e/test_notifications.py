"""Notifications on the real stack: of a run that fails, and of a schedule that pauses itself."""

import subprocess

import pytest

from tests.e2e.stack import MODELYARD, flags
from tests.webhook_receiver import receiving

pytestmark = pytest.mark.e2e


def test_a_failed_run_and_a_paused_schedule_are_reported(stack):
    with receiving() as receiver:
        url = f"{receiver.url}/canary-of-a-token"
        added = subprocess.run(
            [MODELYARD, "notify", "add", "oncall", "--webhook", "-", "--on", "failures", "--on",
             "paused", "--test"],
            env=stack.env, input=f"{url}\n", capture_output=True, text=True, cwd=stack.home,
        )  # fmt: skip
        assert added.returncode == 0, added.stderr
        assert "canary" not in added.stdout + added.stderr
        assert receiver.received()[1]["noun"] == "test"

        stack.do(
            "schedule", "create", "hopeless", "train", "--interval", "1",
            "--policy", "pause_after_failures=1", *flags("fails", {}),
        )  # fmt: skip
        try:
            _, run = receiver.received_of("run", 120)
            _, schedule = receiver.received_of("schedule", 60)
        finally:
            stack.do("schedule", "stop", "hopeless")
        assert (run["flow"], run["state"]) == ("train", "FAIL TRAIN")
        shown = stack.show(run["id"])
        assert run["link"] == shown["links"]["prefect"]
        assert run["reason"].startswith(shown["message"].split("\n")[0])
        assert run["reason"].endswith("the data is wrong")
        assert (schedule["name"], schedule["state"]) == ("hopeless", "DISABLED")
        assert schedule["reason"] == "The last run failed."

        assert stack.do("notify", "remove", "oncall") == {"name": "oncall", "deleted": True}
        assert stack.do("notify", "list") == []
    for file in (path for path in stack.home.rglob("*.log") if "postgres" not in path.parts):
        assert "canary-of-a-token" not in file.read_text(errors="replace"), file
