"""What goes wrong is named: by its own code, soon, and without anything secret."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as boto

from infra.errors import BadInputError, DiskFullError, ModelyardError, NotFoundError
from infra.storage import clients, failures, store, transfer
from tests.infra.storage.conftest import KEY_ID, SECRET, Bucket, point_at
from tests.infra.storage.contract import write_tree
from tests.infra.storage.server import Answer, Server

_CREDENTIALS = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setenv("MODELYARD_TRANSFER_ATTEMPTS", "1")


def _assert_says_nothing_secret(error: BaseException) -> None:
    told = f"{error} {error.__cause__} {error.__dict__}"
    for secret in (KEY_ID, SECRET, "a-token", "Signature", "Authorization", "echo"):
        assert secret not in told
    assert error.__suppress_context__


@pytest.mark.parametrize(
    ("status", "answer", "code", "kind"),
    [
        (403, "InvalidAccessKeyId", "CredentialsWrong", BadInputError),
        (403, "SignatureDoesNotMatch", "CredentialsWrong", BadInputError),
        (400, "ExpiredToken", "CredentialsWrong", BadInputError),
        (400, "InvalidToken", "CredentialsWrong", BadInputError),
        (401, "Whatever", "CredentialsWrong", BadInputError),
        (403, "", "CredentialsWrong", BadInputError),
        (403, "AccessDenied", "AccessDenied", BadInputError),
        (404, "NoSuchBucket", "BucketMissing", NotFoundError),
        (301, "PermanentRedirect", "RegionWrong", BadInputError),
        (400, "AuthorizationHeaderMalformed", "RegionWrong", BadInputError),
        (403, "RequestTimeTooSkewed", "ClockWrong", failures.StoreError),
        (403, "QuotaExceeded", "StoreFull", DiskFullError),
        (507, "InsufficientStorage", "StoreFull", DiskFullError),
        (500, "InternalError", "TransferBroken", failures.StoreError),
        (503, "SlowDown", "TransferBroken", failures.StoreError),
        (400, "RequestTimeout", "TransferBroken", failures.StoreError),
        (400, "MadeUp", "StoreFailed", failures.StoreError),
        (400, f"Made up: {SECRET}", "StoreFailed", failures.StoreError),
        (405, "MethodNotAllowed", "StoreFailed", failures.StoreError),
    ],
)
def test_an_answer_is_named(
    bucket: Bucket,
    server: Server,
    tmp_path: Path,
    status: int,
    answer: str,
    code: str,
    kind: type[ModelyardError],
) -> None:
    source = write_tree(tmp_path / "source", {"a": "1"})

    def fail(given: Answer) -> None:
        if given.method != "HEAD":  # by which boto3 asks for a bucket's region
            given.fail(status, answer, f"echo: Authorization {SECRET} {KEY_ID}")

    server.lie = fail
    target = store(f"s3://{bucket.name}/x")

    for act in (
        target.exists, target.is_directory, target.check_writable, target.entries, target.read,
        lambda: target.fetch(tmp_path / "copy"), lambda: target.publish(source),
    ):  # fmt: skip
        with pytest.raises(kind) as raised:
            act()
        assert raised.value.code == code
        assert raised.value.hint
        _assert_says_nothing_secret(raised.value)
    assert list(tmp_path.iterdir()) == [source]


def test_what_may_not_be_written_is_found_out_early(bucket: Bucket, server: Server) -> None:
    def refuse(answer: Answer) -> None:
        if answer.method != "GET":
            answer.fail(403, "AccessDenied")

    server.lie = refuse
    with pytest.raises(BadInputError) as raised:
        store(f"s3://{bucket.name}/x").check_writable()

    assert raised.value.code == "AccessDenied"


def test_a_check_ends_uploads_whose_beginning_seemed_to_fail(
    bucket: Bucket, server: Server
) -> None:
    def lose(answer: Answer) -> None:
        if answer.method == "POST":
            answer.fail(503, "ServiceUnavailable")

    server.lie = lose
    with pytest.raises(ModelyardError):
        store(f"s3://{bucket.name}/x").check_writable()
    assert bucket.uploads
    server.lie = None
    store(f"s3://{bucket.name}/x").check_writable()

    assert bucket.uploads == []


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_missing_is_named() -> None:
    with pytest.raises(NotFoundError) as raised:
        store("s3://no-such-bucket/x").exists()

    assert raised.value.code == "BucketMissing"


@pytest.fixture
def dead_host() -> str:
    """A port on loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def mute_host() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_is_down_is_named(
    dead_host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(monkeypatch, f"http://{dead_host}")
    monkeypatch.setenv("MODELYARD_TRANSFER_ATTEMPTS", "20")
    paused: list[int] = []
    monkeypatch.setattr(transfer.Transfer, "pause", lambda _, number: paused.append(number))

    for uri in ("s3://bucket/x", f"obs://{dead_host}/bucket/x"):
        with pytest.raises(failures.StoreError) as raised:
            store(uri).fetch(tmp_path / "copy")
        assert raised.value.code == "StoreUnreachable"
        assert raised.value.message.startswith(uri)
    assert paused == []  # a wrong endpoint is not asked again and again


def test_a_name_that_does_not_resolve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, "http://nobody.invalid")

    with pytest.raises(failures.StoreError) as raised:
        store("s3://bucket/x").exists()

    assert raised.value.code == "StoreUnreachable"


def test_a_server_that_says_nothing_is_given_up(
    mute_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, f"http://{mute_host}")
    monkeypatch.setenv("MODELYARD_TRANSFER_TIMEOUT_SECONDS", "0.05")

    with pytest.raises(failures.StoreError) as raised:
        store("s3://bucket/x").exists()

    assert raised.value.code == "TransferBroken"
    assert "ReadTimeoutError" in raised.value.message


def test_a_server_that_speaks_no_http_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        point_at(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(failures.StoreError) as raised:
            store("s3://bucket/x").exists()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()

    assert raised.value.code == "TransferBroken"


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_a_server_without_tls_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(clients, "endpoint_url", lambda host, _: f"https://{host}")
    point_at(monkeypatch, f"https://{server.host}")
    host = f"{server.host}/" if scheme == "obs" else ""

    with pytest.raises(failures.StoreError) as raised:
        store(f"{scheme}://{host}bucket/x").exists()

    assert raised.value.code == "CertificateWrong"


def _without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in _CREDENTIALS:
        for prefix in ("MODELYARD_S3_", "MODELYARD_OBS_", "AWS_"):
            monkeypatch.delenv(prefix + name, raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_credentials_that_are_missing_are_named(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _without_credentials(monkeypatch, tmp_path)

    for uri in (f"s3://{bucket.name}/x", f"obs://{bucket.host}/{bucket.name}/x"):
        with pytest.raises(BadInputError) as raised:
            store(uri).exists()
        assert raised.value.code == "CredentialsMissing"


@pytest.mark.parametrize("left_out", ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY"])
@pytest.mark.parametrize("scheme", ["S3", "OBS"])
def test_half_of_the_credentials_are_none(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, left_out: str, scheme: str
) -> None:
    monkeypatch.delenv(f"MODELYARD_{scheme}_{left_out}")
    host = f"{bucket.host}/" if scheme == "OBS" else ""

    with pytest.raises(BadInputError) as raised:
        store(f"{scheme.lower()}://{host}{bucket.name}/x").exists()

    assert raised.value.code == "CredentialsMissing"


def test_s3_falls_back_to_botos_own_rules(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _without_credentials(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    assert not store(f"s3://{bucket.name}/x").exists()
    with pytest.raises(BadInputError):  # what they find is meant for no other server
        store(f"obs://{bucket.host}/{bucket.name}/x").exists()


def test_a_profile_that_is_missing_is_named(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    monkeypatch.setenv("MODELYARD_S3_REGION", "another")  # a client of its own

    with pytest.raises(BadInputError) as raised:
        store(f"s3://{bucket.name}/x").exists()

    assert raised.value.code == "CredentialsMissing"


@pytest.mark.parametrize("url", ["not an address", "http://id:hidden@127.0.0.1", "ftp//x"])
def test_an_endpoint_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    point_at(monkeypatch, url)

    with pytest.raises(BadInputError) as raised:
        store("s3://bucket/x").exists()

    assert raised.value.code == "EndpointWrong"
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError(), True),
        (boto.ReadTimeoutError(endpoint_url="x"), True),
        (boto.ConnectTimeoutError(endpoint_url="x"), True),
        (boto.SSLError(endpoint_url="x", error="EOF occurred in violation of protocol"), True),
        (boto.SSLError(endpoint_url="x", error="CERTIFICATE_VERIFY_FAILED"), False),
        (boto.NoCredentialsError(), False),
        (boto.ParamValidationError(report="x"), False),
    ],
)
def test_what_may_pass_is_tried_again(error: Any, *, transient: bool) -> None:
    assert failures.is_transient(error) is transient
