"""``modelyard storage``: what it asks for, and what it checks."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import NotFoundError
from infra.storage import access_check
from infra.storage.accesses import StorageAccess
from modelyard import main
from modelyard.commands import storage as command
from registry import storage_accesses
from registry.storage_accesses import StorageAccessView

Do = Callable[..., tuple[int, Any]]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, StorageAccess]]:
    """What was checked and added, in order."""
    calls: list[tuple[str, StorageAccess]] = []

    def add(access: StorageAccess) -> StorageAccessView:
        calls.append(("add", access))
        return storage_accesses._view(access)

    monkeypatch.setattr(access_check, "check", lambda access: calls.append(("check", access)))
    monkeypatch.setattr(storage_accesses, "add", add)
    monkeypatch.setattr(command, "connected", contextlib.nullcontext)
    return calls


@pytest.fixture
def do(done: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Do:
    def run(*arguments: str, stdin: str = "") -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["modelyard", "storage", *arguments, "--json"])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as raised:
            main.main()
        assert isinstance(raised.value.code, int)
        return raised.value.code, json.loads(capsys.readouterr().out)

    return run


def test_an_access_is_checked_and_added(do: Do, done: list[Any]) -> None:
    code, said = do(
        "add", "data", "s3://data", "s3://more", "--endpoint", "http://h:9000/", "--region", "r",
        "--key-id", "id", stdin="the secret\n",
    )  # fmt: skip

    wanted = StorageAccess(
        "data", ("s3://data", "s3://more"), "http://h:9000", "r", False, "id", "the secret"
    )
    assert code == 0
    assert done == [("check", wanted), ("add", wanted)]
    assert "the secret" not in json.dumps(said)


def test_a_temporary_key(do: Do, done: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(command.SECRET_VARIABLE, "s")
    monkeypatch.setenv(command.TOKEN_VARIABLE, "t")
    do("add", "x", "obs://h/c", "--key-id", "id", "--session-token", "--plain-http", "--no-check")

    wanted = StorageAccess(
        "x", ("obs://h/c",), plain_http=True, key_id="id", secret_key="s", session_token="t"
    )
    assert done == [("add", wanted)]


def test_a_nas(do: Do, done: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    do("add", "team", "nas://team", "--folder", "mounted")

    assert done[1] == ("add", StorageAccess("team", ("nas://team",), folder=f"{tmp_path}/mounted"))


def test_one_that_does_not_work_is_not_added(
    do: Do, done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: StorageAccess) -> None:
        raise NotFoundError("There is no bucket.", "Make it.", code="BucketMissing")

    monkeypatch.setattr(access_check, "check", refuse)
    code, said = do("add", "x", "s3://b", "--key-id", "id", stdin="s")

    assert (code, said["error"]["code"]) == (1, "BucketMissing")
    assert said["error"]["hint"] == "Make it. With --no-check it is added all the same."
    assert done == []


def test_what_cannot_be_is_refused_before_anything_is_asked(do: Do, done: list[Any]) -> None:
    assert do("add", "x", "gs://b")[1]["error"]["code"] == "UnknownScheme"
    assert do("add", "x", "obs://h")[1]["error"]["code"] == "CredentialsMissing"
    assert do("add", "x", "s3://b", "--key-id", "id")[1]["error"]["code"] == "SecretNotGiven"
    assert done == []
