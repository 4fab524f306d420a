"""Clients and threads belong to one process, which may have been forked from another."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import secrets, settings
from infra.errors import BadInputError
from infra.storage import addresses, clients, store
from tests.infra.storage.conftest import KEY_ID, SECRET, Bucket
from tests.infra.storage.server import Server


def _in_a_fork(action: Callable[[], None]) -> int:
    """The exit status of a forked process that does ``action``."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:  # noqa: BLE001 (the edge of a process)
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _client(uri: str) -> object:
    return clients.client(uri, addresses.parse(uri), settings.load())


def test_a_client_is_made_once_and_again_for_other_settings(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{bucket.name}/x"
    first = _client(uri)

    assert _client(uri) is first
    assert _client(f"s3://{bucket.name}/other") is first
    assert _client(f"obs://{bucket.host}/{bucket.name}/x") is first  # the same server and key
    monkeypatch.setenv("MODELYARD_S3_SECRET_ACCESS_KEY", "another")
    assert _client(uri) is not first


def test_a_forked_process_makes_its_own(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("x/a", "text")
    uri = f"s3://{bucket.name}/x"
    store(uri).fetch(tmp_path / "parent")
    first, pool = _client(uri), clients.pool(8)

    def child() -> None:
        store(uri).fetch(tmp_path / "child")
        assert _client(uri) is not first
        assert clients.pool(8) is not pool
        assert all(key[0] == os.getpid() for key in (*clients._clients, *clients._pools))

    assert _in_a_fork(child) == 0
    assert (tmp_path / "child" / "a").read_text() == "text"
    assert _client(uri) is first


def test_nothing_is_made_by_importing(tmp_path: Path) -> None:
    code = (
        "import threading, infra.storage.s3 as s3; from infra.storage import clients;"
        "assert not clients._clients and not clients._pools; print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout == "1\n", done.stderr


def test_importing_storage_imports_no_boto() -> None:
    code = "import infra.storage, sys; print('boto3' in sys.modules, 'prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout == "False False\n", done.stderr


def test_secrets_are_kept_for_a_while(
    bucket: Bucket, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(secrets, "resolve", lambda text: asked.append(text) or text)
    monkeypatch.setattr(clients, "_secrets", {})
    monkeypatch.setenv("MODELYARD_S3_SECRET_ACCESS_KEY", "secret:a-key")
    bucket.put("a", "text")
    found = store(f"s3://{bucket.name}/a")

    for _ in range(3):
        assert found.read() == b"text"
    assert asked.count("secret:a-key") == 1
    assert _in_a_fork(found.read) == 0
    assert list(clients._secrets) == [(os.getpid(), (KEY_ID, "secret:a-key", None))]

    now = clients.time.monotonic()
    monkeypatch.setattr(clients.time, "monotonic", lambda: now + 61)
    found.read()
    assert asked.count("secret:a-key") == 2


@pytest.mark.parametrize(
    ("status", "code", "anew"),
    [(403, "SignatureDoesNotMatch", 2), (400, "ExpiredToken", 2), (403, "AccessDenied", 1)],
)
def test_a_secret_that_is_refused_is_read_anew(
    bucket: Bucket, server: Server, monkeypatch: pytest.MonkeyPatch, status: int, code: str,
    anew: int,
) -> None:  # fmt: skip
    values = iter(["old", "new", "newer"])
    used: list[str] = []
    monkeypatch.setattr(
        secrets, "resolve", lambda text: used.append(next(values)) or used[-1]
        if text.startswith("secret:") else text,
    )  # fmt: skip
    monkeypatch.setattr(clients, "_secrets", {})
    monkeypatch.setenv("MODELYARD_S3_SECRET_ACCESS_KEY", "secret:a-key")
    bucket.put("a", "text")
    found = store(f"s3://{bucket.name}/a")

    server.lie = lambda answer: answer.fail(status, code)
    with pytest.raises(BadInputError):
        found.read()
    server.lie = None

    assert found.read() == b"text"
    assert found.read() == b"text"
    assert used == ["old", "new"][:anew]


def test_credentials_are_not_shown(bucket: Bucket) -> None:
    found = settings.load()
    access = clients._access("s3://b/k", addresses.parse("s3://b/k"), found)

    assert access.secret == SECRET
    assert SECRET not in f"{found!r} {found} {access!r} {access}"
