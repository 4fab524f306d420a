"""Runs that the command starts or calls, before there is one."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from flows import run_context, submission
from flows.lifecycle import LifecycleFlow
from infra.errors import RunFailedError
from infra.home import Home
from modelyard import main
from modelyard.commands import run as command
from registry.runs import runs
from registry.runs.run_views import RunStatusView

Ask = Callable[..., int]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, home: Home) -> Ask:
    """Run the command in this process; returns its exit status."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["modelyard", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return int(ended.value.code or 0)

    monkeypatch.setattr(main, "_fork_if_faster", lambda _: None)
    return run


@pytest.mark.parametrize("flow", ["train", "tune"])
def test_a_call_is_refused_before_a_temporary_stack_is_started(
    flow: str, ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []
    monkeypatch.setattr(command, "announce_temporary_stack", lambda: started.append("stack"))
    monkeypatch.setattr(LifecycleFlow, "outcome", lambda *_: started.append("run"))

    wrong = ("-p", "algorithm.uri=/not/there", "-p", "algorithm.entry_point=train.py")
    assert ask("call", flow, *wrong, "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "AlgorithmMissing"
    assert started == []


def test_a_started_run_is_answered_with_how_to_watch_it(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = RunStatusView(flow_run_id="r", name="odd-hog", state="CREATE REQUESTED", links={})
    monkeypatch.setattr(command, "connected", lambda **_: contextlib.nullcontext())
    monkeypatch.setattr(submission, "start", lambda *_: "r")
    monkeypatch.setattr(runs, "brief", lambda _: started)

    assert ask("run", "train") == 0
    shown = capsys.readouterr().out.splitlines()
    assert "name: odd-hog" in shown
    assert shown[-1] == "Watch it: modelyard runs watch r"
    assert ask("run", "train", "--json") == 0
    assert json.loads(capsys.readouterr().out) == started.to_json()


def test_a_template_may_have_what_a_call_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    command.catalogue.find("train").check_without_stack({"template": "t"})


def test_what_a_call_has_printed_is_not_in_its_message(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def outcome(*_: Any) -> Any:

        logging.getLogger("a.run").warning("Traceback: odd")
        error = RunFailedError("It failed. Its last lines:\nTraceback: odd", state="FAIL TRAIN")
        return run_context.failed(error)

    monkeypatch.setattr(command, "announce_temporary_stack", lambda: None)
    monkeypatch.setattr(LifecycleFlow, "outcome", outcome)
    template = ("-p", "template=t")

    assert ask("call", "train", *template) == 1
    shown = capsys.readouterr().out
    assert "Its last lines: (see above)" in shown
    assert "odd" not in shown
    assert ask("call", "train", *template, "--json") == 1
    assert "Traceback: odd" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_ctrl_c_before_the_run_is_submitted_says_so(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "connected", lambda **_: contextlib.nullcontext())
    monkeypatch.setattr(command.submission, "start", interrupted)

    assert ask("run", "train") == 130
    assert "before the run was started" in capsys.readouterr().err
