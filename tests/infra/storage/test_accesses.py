"""Named accesses: which is for a URI, and that transfers use it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra import secrets
from infra.errors import BadInputError, ModelyardError, NotFoundError, StackError
from infra.storage import access_check, accesses, store
from infra.storage.accesses import StorageAccess
from infra.storage.failures import StoreError
from tests.infra.storage.conftest import KEY_ID, SECRET, Bucket
from tests.infra.storage.server import Server


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The blocks that Prefect has; each read of them is counted in the key ""."""
    found: dict[str, dict[str, Any]] = {}
    reads = iter(range(1, 1000))

    def read(block_type: str) -> dict[str, dict[str, Any]]:
        assert block_type == accesses.BLOCK_TYPE
        found[""] = {"reads": next(reads)}
        return {name: data for name, data in found.items() if name}

    monkeypatch.setattr(secrets, "read_blocks", read)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    accesses.forget()
    return found


@pytest.fixture(autouse=True)
def _forgotten() -> Any:
    yield
    accesses.forget()


def block(*uris: str, **more: Any) -> dict[str, Any]:
    return {"uris": list(uris), **more}


def name_for(uri: str) -> str | None:
    found = accesses.find(uri)
    return found.name if found else None


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://data/x/y", "x"),
        ("s3://data/x", "x"),
        ("s3://data/xy", "data"),
        ("s3://data", "data"),
        ("S3://data/", "data"),
        ("s3://other/x", "every-bucket"),
        ("obs://h:1/c/p", "container"),
        ("obs://H:1/v1/AUTH_0/c/p", "container"),
        ("obs://h:1/d", "endpoint"),
        ("obs://h/c", None),
        ("nas://one:/a/b", "nas"),
        ("nas://two:/a", None),
    ],
)
def test_the_longest_uri_counts(
    blocks: dict[str, dict[str, Any]], uri: str, name: str | None
) -> None:
    blocks |= {
        "every-bucket": block("s3://"), "data": block("s3://data/"), "x": block("s3://data/x"),
        "endpoint": block("obs://h:1"), "container": block("obs://h:1/c"),
        "nas": block("nas://one", folder="/mnt"),
    }  # fmt: skip
    assert name_for(uri) == name


def test_they_are_read_once_a_minute(
    blocks: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(accesses.time, "monotonic", lambda: now)
    blocks["a"] = block("s3://a")
    assert [name_for("s3://a"), name_for("s3://b")] == ["a", None]
    assert blocks[""] == {"reads": 1}

    blocks["b"] = block("s3://b")
    now = 61.0
    assert name_for("s3://b") == "b"

    def fail(_: str) -> None:
        raise StackError("Prefect does not answer.")

    monkeypatch.setattr(secrets, "read_blocks", fail)
    now = 122.0
    assert name_for("s3://b") == "b"  # as it was
    accesses.forget()
    with pytest.raises(StackError):
        name_for("s3://b")


def test_a_process_that_knows_no_prefect_has_none(
    blocks: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks["a"] = block("s3://a")
    monkeypatch.delenv("PREFECT_API_URL")

    assert name_for("s3://a") is None
    assert "" not in blocks


def test_an_access_comes_before_the_settings(
    blocks: dict[str, dict[str, Any]], bucket: Bucket, server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bucket.put("a/b", "text")
    blocks["own"] = block(
        f"s3://{bucket.name}/a", endpoint=f"http://{server.host}", key_id="own-key",
        secret_key="own-secret",
    )  # fmt: skip
    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    assert store(f"s3://{bucket.name}/a/b").read() == b"text"

    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", f"http://{server.host}")
    assert [_key_of(f"s3://{bucket.name}/{key}") for key in ("a/b", "c")] == ["own-key", KEY_ID]


def _key_of(uri: str) -> str:
    from infra import settings
    from infra.storage import addresses, clients

    return str(clients._access(uri, addresses.parse(uri), settings.load()).key_id)


def test_the_settings_work_while_prefect_does_not_answer(
    blocks: dict[str, dict[str, Any]], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise StackError("Prefect does not answer.")

    monkeypatch.setattr(secrets, "read_blocks", fail)
    bucket.put("a", "text")
    assert store(f"s3://{bucket.name}/a").read() == b"text"
    monkeypatch.delenv("MODELYARD_OBS_ACCESS_KEY_ID")
    with pytest.raises(StackError):  # and not that it has no key
        store(f"obs://{bucket.host}/{bucket.name}/a").read()


def test_an_obs_endpoint_that_speaks_plain_http(blocks: dict[str, dict[str, Any]]) -> None:
    from infra import settings
    from infra.storage import addresses, clients

    key = {"key_id": "k", "secret_key": "s"}
    blocks["plain"] = block("obs://plain.example", plain_http=True, region="here", **key)
    blocks["usual"] = block("obs://usual.example", **key)
    found = []
    for uri in ("obs://plain.example/c", "obs://usual.example/c"):
        access = clients._access(uri, addresses.parse(uri), settings.load())
        found.append((access.endpoint_url, access.region))
    assert found == [("http://plain.example", "here"), ("https://usual.example", "us-east-1")]


def test_a_nas(
    blocks: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("named")
    other = tmp_path / "other"
    other.mkdir()
    (other / "a").write_text("set")
    blocks["shared"] = block("nas://one", folder=str(tmp_path))
    assert store("nas://one:/a").read() == b"named"
    monkeypatch.setenv("MODELYARD_NAS", f'{{"one": "{other}"}}')
    assert store("nas://one:/a").read() == b"set"


def test_no_secret_is_in_its_repr() -> None:
    shown = repr(
        StorageAccess("a", ("s3://a",), key_id="id", secret_key="canary", session_token="canary")
    )
    assert "canary" not in shown


class TestCheck:
    def access(self, bucket: Bucket, uri: str = "", **more: Any) -> StorageAccess:
        usual = {"endpoint": f"http://{bucket.host}", "key_id": KEY_ID, "secret_key": SECRET}
        return StorageAccess("a", (uri or f"s3://{bucket.name}/x",), **{**usual, **more})

    def test_what_works(self, bucket: Bucket, tmp_path: Path) -> None:
        access_check.check(self.access(bucket))
        access_check.check(self.access(bucket, "s3://"))
        access_check.check(self.access(bucket, f"obs://{bucket.host}/{bucket.name}", endpoint=""))
        access_check.check(self.access(bucket, f"obs://{bucket.host}", endpoint=""))
        access_check.check(StorageAccess("a", ("nas://x",), folder=str(tmp_path)))

    def test_what_does_not(self, bucket: Bucket, server: Server) -> None:
        def code(access: StorageAccess) -> str:
            with pytest.raises(ModelyardError) as raised:
                access_check.check(access)
            return raised.value.code

        assert code(self.access(bucket, "s3://not-there-at-all")) == "BucketMissing"
        assert code(self.access(bucket, endpoint="http://127.0.0.1:1")) == "StoreUnreachable"
        assert code(StorageAccess("a", ("nas://x",), folder="/not/there")) == "NasNotMounted"
        with pytest.raises(NotFoundError, match="is a file") as raised:
            access_check.check(StorageAccess("a", ("nas://x",), folder=__file__))
        assert raised.value.code == "NasNotMounted"
        server.lie = lambda answer: answer.fail("403", "InvalidAccessKeyId")
        assert code(self.access(bucket)) == "CredentialsWrong"
        assert code(self.access(bucket, "s3://")) == "CredentialsWrong"
        server.lie = lambda answer: answer.fail("403", "AccessDenied")
        assert code(self.access(bucket)) == "AccessDenied"
        access_check.check(self.access(bucket, "s3://"))  # may not list buckets, and need not

    def test_a_server_that_accepts_and_does_not_answer_is_asked_once(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELYARD_TRANSFER_TIMEOUT_SECONDS", "0.1")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(StoreError, match=r"sent no answer for 0\.1 s") as raised:
                access_check.check(self.access(bucket, endpoint=endpoint))
            silent.accept()[0].close()
            silent.setblocking(False)
            with pytest.raises(BlockingIOError):
                silent.accept()
        assert raised.value.code == "StoreUnreachable"


def test_unknown_nas_says_how_to_name_it(blocks: dict[str, dict[str, Any]]) -> None:
    with pytest.raises((BadInputError, NotFoundError)) as raised:
        store("nas://nowhere:/a")
    assert raised.value.code == "NasUnknown"
    assert "modelyard storage add" in raised.value.hint


class TestRead:
    """Prefect is asked without its client, which takes seconds to import."""

    @pytest.fixture
    def answers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, Any]]]:
        """What a server answers, one after the other; the last one again and again."""
        given: list[tuple[int, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == (
                    "/api/block_types/slug/storage-access/block_documents?include_secrets=true"
                )
                assert self.headers["Authorization"] == "Basic bWU6cHc="
                status, body = given.pop(0) if len(given) > 1 else given[0]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:pw")
        yield given
        server.shutdown()
        thread.join()
        server.server_close()

    def test_what_it_answers(self, answers: list[tuple[int, Any]]) -> None:
        data = {"uris": ["s3://a"], "key_id": "id", "secret_key": "s"}
        answers += [(503, {}), (200, [{"name": "a", "data": data}])]
        assert accesses.read_all() == [
            StorageAccess("a", ("s3://a",), key_id="id", secret_key="s")
        ]
        answers[:] = [(404, {})]
        assert accesses.read_all() == []

    @pytest.mark.parametrize("status", [401, 500])
    def test_what_it_refuses(self, answers: list[tuple[int, Any]], status: int) -> None:
        answers.append((status, {}))
        with pytest.raises(StackError, match=f"status {status}"):
            accesses.read_all()

    def test_a_server_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
        with pytest.raises(StackError, match="ConnectError"):
            accesses.read_all()

    def test_no_client_of_prefects_is_imported(self) -> None:
        code = (
            "import os, sys; os.environ['PREFECT_API_URL'] = 'http://127.0.0.1:1/api'\n"
            "from infra.storage import accesses\n"
            "try: accesses.find('s3://a')\n"
            "except Exception as error: print(type(error).__name__, 'prefect' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "StackError False\n", done.stderr
