from __future__ import annotations

import base64
import os
import threading

import pytest

from infra.door import credential
from infra.door.credential import Credential
from infra.errors import StackError
from infra.home import Home


def test_a_home_without_one_gets_a_credential_that_its_owner_alone_reads(home: Home) -> None:
    assert credential.read(home) is None

    made = credential.ensure(home)

    assert home.credential.stat().st_mode & 0o777 == 0o600
    assert len(made.secret) >= 43  # 32 random bytes
    assert credential.ensure(home) == credential.read(home) == made
    assert [path.name for path in home.root.glob(".credential*")] == []


def test_many_who_make_it_at_once_agree(home: Home) -> None:
    made: list[Credential] = []
    threads = [
        threading.Thread(target=lambda: made.append(credential.ensure(home))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 8
    assert len({one.secret for one in made}) == 1


def test_one_that_a_full_disk_left_empty_is_made_again(home: Home) -> None:
    home.credential.touch(0o600)

    assert credential.ensure(home).secret


def test_rotation_replaces_it(home: Home) -> None:
    before = credential.ensure(home)

    after = credential.rotate(home)

    assert after != before
    assert credential.read(home) == after


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_one_that_others_may_read_is_refused(home: Home, mode: int) -> None:
    credential.ensure(home)
    home.credential.chmod(mode)

    with pytest.raises(StackError) as refused:
        credential.ensure(home)

    assert refused.value.code == "CredentialExposed"
    assert "rotate" in refused.value.hint
    credential.rotate(home)
    assert credential.read(home) is not None


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_home_that_others_may_write_to_is_refused(home: Home, mode: int) -> None:
    home.root.chmod(mode)

    for use in (credential.read, credential.ensure, credential.rotate):
        with pytest.raises(StackError) as refused:
            use(home)
        assert refused.value.code == "HomeExposed"
        assert "chmod go-w" in refused.value.hint
    assert not home.credential.exists()
    home.root.chmod(0o755)
    assert credential.ensure(home).secret


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", ["root", "credential"])
def test_what_another_user_owns_is_refused(home: Home, what: str) -> None:
    credential.ensure(home)
    os.chown(getattr(home, what), 65534, 65534)

    with pytest.raises(StackError) as refused:
        credential.read(home)
    assert refused.value.code == {"root": "HomeExposed", "credential": "CredentialExposed"}[what]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_another_users_is_refused(home: Home) -> None:
    home.credential.touch(0o000)

    with pytest.raises(StackError) as refused:
        credential.read(home)

    assert refused.value.code == "CredentialUnreadable"


def test_it_is_what_prefects_and_mlflows_clients_read() -> None:
    held = Credential("abc")

    assert held.environment() == {
        "PREFECT_API_AUTH_STRING": "modelyard:abc",
        "MLFLOW_TRACKING_USERNAME": "modelyard",
        "MLFLOW_TRACKING_PASSWORD": "abc",
    }
    assert base64.b64decode(held.basic.removeprefix("Basic ")) == b"modelyard:abc"


def test_it_is_not_shown_and_its_keys_differ_by_purpose() -> None:
    held = Credential("abc")

    assert "abc" not in repr(held)
    assert held.key("a") != held.key("b")
    assert held.key("a") != Credential("abd").key("a")
