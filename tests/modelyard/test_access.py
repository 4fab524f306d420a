"""``modelyard env``, ``open`` and ``credential``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from infra.connection import Endpoints
from infra.door import credential
from infra.home import Home
from infra.stack import client
from modelyard import login, main

_ENDPOINTS = Endpoints(
    "http://127.0.0.1:1/api", "http://127.0.0.1:2", "postgresql://x", "http://127.0.0.1:3"
)

Do = Callable[..., tuple[int, str]]


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Do:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["modelyard", *arguments])
        with pytest.raises(SystemExit) as raised:
            main.main()
        assert isinstance(raised.value.code, int)
        return raised.value.code, capsys.readouterr().out

    return run


@pytest.fixture
def up(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    credential.ensure(home)
    monkeypatch.setattr(client, "endpoints", lambda _: _ENDPOINTS)
    monkeypatch.setattr(client, "status", lambda _: {"running": True})


def test_env_is_read_by_a_shell_and_by_programs(do: Do, up: None, home: Home) -> None:
    held = credential.read(home)
    assert held is not None
    wanted = {
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:2",
        "MLFLOW_REGISTRY_URI": "http://127.0.0.1:2",
        **held.environment(),
    }

    code, as_json = do("env", "--json")
    assert (code, json.loads(as_json)) == (0, wanted)
    code, lines = do("env")
    assert code == 0
    shown = subprocess.run(["sh", "-c", f"{lines}\nenv"], capture_output=True, text=True, env={})
    assert {f"{name}={value}" for name, value in wanted.items()} <= set(shown.stdout.splitlines())


def test_what_a_shell_would_execute_is_quoted(
    do: Do, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://h/$(touch evil)`'\"; x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h")
    monkeypatch.setenv("MODELYARD_DATABASE_URL", "postgresql://x")

    _, lines = do("env")

    shown = subprocess.run(
        ["sh", "-c", f'{lines}\nprintf %s "$PREFECT_API_URL"'],
        capture_output=True, text=True, cwd=home.root,
    )  # fmt: skip
    assert shown.stdout == "http://h/$(touch evil)`'\"; x"
    assert not (home.root / "evil").exists()


@pytest.mark.parametrize("verb", ["env", "open"])
def test_they_need_the_stack(do: Do, home: Home, verb: str) -> None:
    code, answer = do(verb, "--json")

    assert code == 1
    assert json.loads(answer)["error"]["code"] == "Stack"


@pytest.mark.parametrize(
    ("page", "url"),
    [
        ((), "http://127.0.0.1:1"),
        (("mlflow",), "http://127.0.0.1:2"),
        (("web",), "http://127.0.0.1:3"),
    ],
)
def test_a_page_is_opened_and_its_address_is_bare(
    do: Do, up: None, monkeypatch: pytest.MonkeyPatch, page: tuple[str, ...], url: str
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(login, "open_browser", lambda url: opened.append(url) or True)

    code, answer = do("open", *page, "--json")

    assert (code, json.loads(answer)) == (0, {"url": url, "opened": True})
    assert opened == [url]
    assert do("open", "elsewhere")[0] == 2


def test_the_credential_is_replaced_while_nothing_uses_it(do: Do, home: Home) -> None:
    before = credential.ensure(home)

    assert do("credential", "rotate", "--json") == (0, '{"rotated": true}\n')
    assert credential.read(home) != before


def test_it_is_not_while_the_stack_is_up(do: Do, up: None, home: Home) -> None:
    before = credential.read(home)

    code, answer = do("credential", "rotate", "--json")

    assert (code, json.loads(answer)["error"]["code"]) == (1, "StackUp")
    assert credential.read(home) == before


def test_without_a_browser_the_link_is_printed(
    do: Do, up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "open_browser", lambda _: False)

    assert "http://127.0.0.1:1" in do("open")[1]
