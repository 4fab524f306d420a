"""Links that log a browser in."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from infra.door import credential, sessions
from infra.home import Home
from modelyard import login, output


@pytest.fixture
def stack(home: Home) -> Home:
    """A home whose stack has run."""
    credential.ensure(home)
    (home.root / "ports.json").write_text(json.dumps({"prefect": 4200, "mlflow": 5000}))
    return home


def _redeem(home: Home, link: str) -> bool:
    held = credential.read(home)
    assert held is not None
    (token,) = parse_qs(urlsplit(link).query)[sessions.TOKEN_PARAMETER]
    return sessions.of(home, held).redeem(token)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:4200", "http://127.0.0.1:4200/runs/flow-run/1",
        "http://127.0.0.1:5000/#/experiments/1/runs/2?workflowType=machine_learning",
        "http://127.0.0.1:4200/a?b=1#c",
    ],
)  # fmt: skip
def test_a_link_to_a_page_of_the_stack_logs_in_once(stack: Home, url: str) -> None:
    made, asked = urlsplit(login.link(url)), urlsplit(url)

    assert (made.netloc, made.fragment) == (asked.netloc, asked.fragment)
    assert made.path == (asked.path or "/")
    assert made.query.startswith(f"{asked.query}&" if asked.query else sessions.TOKEN_PARAMETER)
    assert _redeem(stack, made.geturl())
    assert not _redeem(stack, made.geturl())
    assert _redeem(stack, login.link(url))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:42001/", "http://127.0.0.1:4200.evil.example/", "s3://bucket/key"]
)
def test_nothing_else_gets_a_token(stack: Home, url: str) -> None:
    assert login.link(url) == url


def test_bare_links_have_a_hint_until_a_browser_has_logged_in(
    stack: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"links": {"prefect": "http://127.0.0.1:4200/runs/flow-run/1"}}
    output.thing(found, as_json_=False)
    first = capsys.readouterr()
    assert _redeem(stack, login.link("http://127.0.0.1:4200"))
    output.thing(found, as_json_=False)

    assert first.err == "The links want a login: modelyard open\n"
    assert "modelyard_token" not in first.out
    assert capsys.readouterr().err == ""


def test_where_there_is_no_door_links_are_bare(
    stack: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_DOOR", "off")

    assert login.link("http://127.0.0.1:4200") == "http://127.0.0.1:4200"


@pytest.mark.parametrize("of_the_stack", [True, False])
def test_the_running_stack_says_whether_there_is_a_door(
    stack: Home, monkeypatch: pytest.MonkeyPatch, of_the_stack: bool
) -> None:
    monkeypatch.setenv("MODELYARD_DOOR", "off" if of_the_stack else "on")
    monkeypatch.setattr(login.stack, "status", lambda _: {"door": of_the_stack})

    link = login.link("http://127.0.0.1:4200")
    assert (sessions.TOKEN_PARAMETER in link) is of_the_stack


def test_a_home_of_an_older_release_has_bare_links(home: Home) -> None:
    assert login.link("http://127.0.0.1:4200") == "http://127.0.0.1:4200"
    (home.root / "ports.json").write_text('{"prefect": 4200}')
    assert login.link("http://127.0.0.1:4200") == "http://127.0.0.1:4200"


def test_links_on_a_terminal_log_in_and_others_are_bare(
    stack: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"links": {"prefect": "http://127.0.0.1:4200/x"}, "url": "http://127.0.0.1:4200/y"}

    output.thing(found, as_json_=False)
    output.thing(found, as_json_=True)
    assert sessions.TOKEN_PARAMETER not in capsys.readouterr().out

    monkeypatch.setattr(output.console, "_force_terminal", True)
    output.thing(found, as_json_=False)
    shown = capsys.readouterr().out
    output.thing(found, as_json_=True)
    assert sessions.TOKEN_PARAMETER in shown
    assert sessions.TOKEN_PARAMETER not in capsys.readouterr().out


def test_the_browser_reads_its_link_from_a_file_of_its_user(
    stack: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line, which every user of the machine can read, has the file's name alone."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)

    assert login.open_browser("http://127.0.0.1:5000/?a=1&b=2#/x")
    assert login.open_browser("http://127.0.0.1:5000/?a=1&b=2#/x")

    file = Path(unquote(urlsplit(opened[1]).path))
    assert urlsplit(opened[1]).scheme == "file"
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    link = text.partition('href="')[2].partition('"')[0].replace("&amp;", "&")
    assert link.startswith("http://127.0.0.1:5000/?a=1&b=2&")
    assert _redeem(stack, link)


def test_on_a_cluster_links_lead_where_the_browser_finds_its_servers(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "PREFECT_API_URL": "http://modelyard-prefect.modelyard.svc:4200/api",
        "PREFECT_UI_URL": "https://prefect.example",
        "MLFLOW_TRACKING_URI": "http://modelyard-mlflow.modelyard.svc:5000",
        "MODELYARD_DATABASE_URL": "postgresql+psycopg://u@/d",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    page = "https://prefect.example/runs/flow-run/1"
    assert login.link(page) == page

    monkeypatch.setenv(credential.VARIABLE, "of-a-secret")

    assert _redeem(home, login.link(page))
    assert login.link("https://prefect.example.evil/") == "https://prefect.example.evil/"
    assert not home.credential.exists()
