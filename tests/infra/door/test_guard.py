from __future__ import annotations

import pytest

from infra.door import credential, guard
from infra.door.door import Door
from infra.door.sessions import SERVERS
from infra.home import Home
from infra.settings import Settings
from tests.infra.door.conftest import Server
from tests.infra.door.requests import ask, connect


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_is_behind_a_door_of_the_homes_credential(
    home: Home, server: Server, name: str
) -> None:
    app = guard.guarded(server, name, home, Settings(home=home.root))
    held = credential.read(home)
    assert held is not None

    assert ask(app).status == 401
    assert ask(app, authorization=held.basic).status == 200
    assert ask(app, authorization=held.basic, host="ml.example").status == 403


@pytest.mark.parametrize("name", SERVERS)
def test_websockets_that_authenticate_by_a_message_are_prefects_alone(
    home: Home, server: Server, name: str
) -> None:
    app = guard.guarded(server, name, home, Settings(home=home.root))

    refused = connect(app, "/api/events/out", "prefect").messages

    assert (refused == []) is (name == "prefect")


def test_other_host_names_are_allowed_by_a_setting(home: Home, server: Server) -> None:
    settings = Settings(home=home.root, web_hosts="a.example, ml.example")
    app = guard.guarded(server, "web", home, settings)

    assert ask(app, host="ml.example:4300").status == 401


@pytest.mark.parametrize("written", ["off", "false", "0"])
def test_a_setting_removes_the_door(
    home: Home, server: Server, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("MODELYARD_DOOR", written)

    app = guard.guarded(server, "web", home, Settings(home=home.root))

    assert app is server
    assert not isinstance(app, Door)
    assert credential.read(home) is None
