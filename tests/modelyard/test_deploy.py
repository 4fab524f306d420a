"""``modelyard deploy``: where the pools' runs go is asked for, or stays as it is."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import pytest

from flows import deploying
from infra.errors import ConflictError
from modelyard import main
from modelyard.commands import deploy as command


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    kept: list[Any] = []

    async def deploy(kind: str | None) -> dict[str, list[str]]:
        kept.append(kind)
        if kind == "local":
            raise ConflictError("Runs go on.", "Wait.", code="PoolBusy")
        return {"pools": ["gpu"], "deployments": []}

    monkeypatch.setattr(deploying, "deploy", deploy)
    monkeypatch.setattr(command, "connected", lambda **_: contextlib.nullcontext())
    return kept


def _do(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["modelyard", "deploy", "--json", *arguments])
    with pytest.raises(SystemExit) as raised:
        main.main()
    assert isinstance(raised.value.code, int)
    return raised.value.code


@pytest.mark.parametrize(
    ("arguments", "kind"), [((), None), (("--pools", "kubernetes"), "kubernetes")]
)
def test_what_is_asked_for(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], kind: str | None,
) -> None:  # fmt: skip
    assert _do(monkeypatch, *arguments) == 0
    assert asked == [kind]
    assert json.loads(capsys.readouterr().out) == {"pools": ["gpu"], "deployments": []}


def test_what_would_lose_runs_is_refused(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _do(monkeypatch, "--pools", "local") == 1
    assert asked == ["local"]
    assert "PoolBusy" in capsys.readouterr().out


def test_there_are_no_other_pools(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _do(monkeypatch, "--pools", "nomad") != 0
    assert asked == []
