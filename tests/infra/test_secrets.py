from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from infra import secrets
from infra.errors import BadInputError, ModelyardError, NotFoundError, StackError

_BLOCKS = {"my-token": "s3cr3t", "number": 7, "group": {"user": "x"}, "empty": ""}


class _Prefect(http.server.BaseHTTPRequestHandler):
    """As much of Prefect's API as reading a block takes."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        name = path.rpartition("/")[2]
        if path != f"/api/block_types/slug/secret/block_documents/name/{name}":
            return self._answer(500, {})
        if name not in _BLOCKS:
            return self._answer(404, {"detail": "Block document not found"})
        # Without being asked for it, Prefect shows no secret.
        value = _BLOCKS[name] if "include_secrets=true" in query.lower() else "********"
        block = {
            "id": "00000000-0000-0000-0000-000000000001",
            "name": name,
            "data": {"value": value},
            "block_type_id": "00000000-0000-0000-0000-000000000002",
            "block_schema_id": "00000000-0000-0000-0000-000000000003",
        }
        return self._answer(200, block)

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def _prefect() -> Iterator[None]:
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Prefect) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
            yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("text", ["", "plain", "secrets:x", "Secret:x", " secret:x", "a secret:x"])
def test_what_names_no_secret_is_itself(text: str) -> None:
    assert secrets.resolve(text) == text


@pytest.mark.usefixtures("_prefect")
@pytest.mark.parametrize(("name", "value"), [("my-token", "s3cr3t"), ("empty", "")])
def test_a_secret_is_read_from_its_block(name: str, value: str) -> None:
    assert secrets.resolve(f"secret:{name}") == value


@pytest.mark.usefixtures("_prefect")
def test_a_secret_that_is_missing_is_named() -> None:
    with pytest.raises(NotFoundError) as raised:
        secrets.resolve("secret:not-there")

    assert raised.value.code == "SecretMissing"
    assert "not-there" in raised.value.message
    assert "Blocks" in raised.value.hint


@pytest.mark.usefixtures("_prefect")
@pytest.mark.parametrize("name", ["number", "group"])
def test_a_secret_that_is_no_text_is_refused(name: str) -> None:
    with pytest.raises(BadInputError) as raised:
        secrets.resolve(f"secret:{name}")

    assert raised.value.code == "SecretNotText"
    assert "7" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "A", "ü", "x\n"])
def test_a_name_that_no_block_has_is_refused(name: str) -> None:
    with pytest.raises(BadInputError) as raised:
        secrets.resolve(f"secret:{name}")

    assert raised.value.code == "SecretNameWrong"


def test_what_may_be_the_secret_itself_is_not_told() -> None:
    with pytest.raises(BadInputError) as raised:
        secrets.resolve("secret:My_Passw0rd")

    assert "Passw0rd" not in str(raised.value.as_dict())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", ""])
def test_prefect_that_does_not_answer_is_named(url: str) -> None:
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        temporary_settings,
    )

    chosen = {
        PREFECT_API_URL: url or None,
        PREFECT_CLIENT_MAX_RETRIES: 0,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False,
    }
    with temporary_settings(chosen), pytest.raises(StackError) as raised:
        secrets.resolve("secret:my-token")

    assert raised.value.code == "SecretUnreadable"


@pytest.mark.usefixtures("_prefect")
def test_storage_takes_its_credentials_from_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra import settings
    from infra.storage import addresses, clients

    monkeypatch.setenv("MODELYARD_S3_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("MODELYARD_S3_SECRET_ACCESS_KEY", "secret:my-token")
    access = clients._access("s3://b/k", addresses.parse("s3://b/k"), settings.load())

    assert (access.key_id, access.secret) == ("an-id", "s3cr3t")

    monkeypatch.setenv("MODELYARD_S3_SECRET_ACCESS_KEY", "secret:not-there")
    with pytest.raises(ModelyardError) as raised:
        clients._access("s3://b/k", addresses.parse("s3://b/k"), settings.load())
    assert raised.value.code == "SecretMissing"
