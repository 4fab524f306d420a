from __future__ import annotations

import pytest

from infra.door import sessions as module
from infra.door.credential import Credential
from infra.door.sessions import SERVERS, Sessions
from infra.home import Home
from tests.infra.door.conftest import Clock, cookie


def test_a_token_is_good_once(sessions: Sessions) -> None:
    token, other = sessions.issue_token(), sessions.issue_token()

    assert token != other
    assert sessions.redeem(token)
    assert not sessions.redeem(token)
    assert sessions.redeem(other)


def test_a_used_token_stays_used_when_the_server_starts_again(
    sessions: Sessions, credential: Credential, home: Home, clock: Clock
) -> None:
    token = sessions.issue_token()
    assert sessions.redeem(token)

    assert not Sessions(credential, home.logins, clock).redeem(token)


def test_a_token_is_good_for_a_while(sessions: Sessions, clock: Clock) -> None:
    token = sessions.issue_token()
    clock.seconds += module.TOKEN_SECONDS + 1

    assert not sessions.redeem(token)


def test_what_was_not_signed_is_no_token(sessions: Sessions) -> None:
    nonce, expires, signature = sessions.issue_token().split(".")

    for forged in (
        "", "x", f"{nonce}.{expires}", f"{nonce}.{int(expires) + 1}.{signature}",
        f"{'0' * 24}.{expires}.{signature}", f"{nonce}.{expires}.{'A' * 43}",
        f"../../{nonce[6:]}.{expires}.{signature}", f"{nonce}.{expires}.{signature}\n",
    ):  # fmt: skip
        assert not sessions.redeem(forged)


def test_tokens_of_long_ago_leave_nothing(sessions: Sessions, clock: Clock, home: Home) -> None:
    clock.seconds = 10 * module.TOKEN_SECONDS + home.root.stat().st_mtime
    old = home.logins / "old"
    home.logins.mkdir()
    old.touch()

    assert sessions.redeem(sessions.issue_token())
    assert not old.exists()


@pytest.mark.parametrize("server", SERVERS)
def test_a_cookie_logs_in_to_its_server_alone(sessions: Sessions, server: str) -> None:
    given = sessions.cookies("1000")
    held = cookie(given, server)

    assert [one for one in SERVERS if sessions.accepts(held, one, "1000")] == [server]
    assert all("; HttpOnly; SameSite=Lax" in one and "Path=/" in one for one in given)
    assert len({one.partition("=")[0] for one in given}) == len(SERVERS)
    assert sessions.accepts(f"a=1; {held}; b=2", server, "1000")


def test_a_cookie_is_its_users(sessions: Sessions) -> None:
    held = cookie(sessions.cookies("1000"), "web")

    assert sessions.accepts(held, "web", "1000")
    assert not sessions.accepts(held, "web", "1001")
    assert not sessions.accepts(held, "web", "")
    assert not sessions.accepts(held.replace(".1000.", ".1001."), "web", "1001")
    assert not sessions.accepts(held.replace(".1000.", ".."), "web", "")


def test_where_the_user_is_unknown_it_is_anybodys(sessions: Sessions) -> None:
    assert sessions.accepts(cookie(sessions.cookies(""), "web"), "web", "1000")


def test_a_cookie_is_good_for_a_while(sessions: Sessions, clock: Clock) -> None:
    held = cookie(sessions.cookies(""), "web")
    clock.seconds += module.SESSION_SECONDS + 1

    assert not sessions.accepts(held, "web", "")


def test_rotation_logs_everybody_out(sessions: Sessions, home: Home, clock: Clock) -> None:
    held, token = cookie(sessions.cookies(""), "web"), sessions.issue_token()
    rotated = Sessions(Credential("another"), home.logins, clock)

    assert not rotated.accepts(held, "web", "")
    assert not rotated.redeem(token)


def test_two_stacks_of_a_host_have_cookies_of_different_names(
    sessions: Sessions, home: Home, clock: Clock
) -> None:
    other = Sessions(Credential("another"), home.logins, clock)

    names = {one.partition("=")[0] for one in (*sessions.cookies(""), *other.cookies(""))}

    assert len(names) == 2 * len(SERVERS)


def test_the_server_behind_is_not_shown_sessions(sessions: Sessions) -> None:
    held = "; ".join(one.partition(";")[0] for one in sessions.cookies(""))

    assert module.without_sessions(f"a=1; {held}; prefect_ui_version=v1") == (
        "a=1; prefect_ui_version=v1"
    )
    assert module.without_sessions(held) == ""
    assert module.without_sessions("") == ""
