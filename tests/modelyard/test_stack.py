"""What ``modelyard up`` and ``status`` show."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from infra.home import Home
from infra.stack import client
from modelyard import main

_STATUS: dict[str, Any] = {
    "ready": True, "parts": [], "links": {"web": "http://127.0.0.1:3"}, "endpoints": {},
    "lasting": True,
}  # fmt: skip


@pytest.mark.parametrize("verb", [("up", "--detach"), ("status",)])
@pytest.mark.parametrize("door", [True, False])
def test_that_there_is_no_door_is_said_each_time(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    verb: tuple[str, ...], door: bool,
) -> None:  # fmt: skip
    told = {**_STATUS, "door": door}
    monkeypatch.setattr(client, "up", lambda *_: told)
    monkeypatch.setattr(client, "status", lambda *_: told)

    monkeypatch.setattr(sys, "argv", ["modelyard", *verb])
    with pytest.raises(SystemExit, match="0"):
        main.main()
    assert ("MODELYARD_DOOR is off" in capsys.readouterr().out) is not door

    monkeypatch.setattr(sys, "argv", ["modelyard", *verb, "--json"])
    with pytest.raises(SystemExit, match="0"):
        main.main()
    assert json.loads(capsys.readouterr().out)["door"] is door


@pytest.mark.parametrize("lasting", [True, False])
def test_that_a_stack_is_temporary_is_said(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lasting: bool
) -> None:
    told = {**_STATUS, "door": True, "lasting": lasting}
    monkeypatch.setattr(client, "status", lambda *_: told)
    monkeypatch.setattr(sys, "argv", ["modelyard", "status"])

    with pytest.raises(SystemExit, match="0"):
        main.main()
    assert ("temporary" in capsys.readouterr().out) is not lasting
