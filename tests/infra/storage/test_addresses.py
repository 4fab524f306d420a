from __future__ import annotations

import pytest

from infra.errors import BadInputError
from infra.storage import addresses, store
from infra.storage.addresses import Address


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket", Address("", "bucket", "")),
        ("s3://bucket/", Address("", "bucket", "")),
        ("s3://bucket/a/b", Address("", "bucket", "a/b")),
        ("s3://bucket/a/b/", Address("", "bucket", "a/b")),
        ("s3://bucket/%20 ?#+ü", Address("", "bucket", "%20 ?#+ü")),
        ("s3://v1/AUTH_x/b", Address("", "v1", "AUTH_x/b")),
        ("obs://host/container/a", Address("host", "container", "a")),
        ("obs://host:8080/container/a", Address("host:8080", "container", "a")),
        ("obs://[::1]:80/container", Address("[::1]:80", "container", "")),
        ("obs://host/v1/AUTH_0a/container/a", Address("host", "container", "a")),
        ("obs://host/v1/container/a", Address("host", "v1", "container/a")),
        ("obs://host/v1", Address("host", "v1", "")),
    ],
)
def test_a_uri_names_a_place(uri: str, expected: Address) -> None:
    assert addresses.parse(uri) == expected


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("s3://", "BucketNameWrong"),
        ("s3:///key", "BucketNameWrong"),
        ("s3://b ucket/key", "BucketNameWrong"),
        ("s3://bucket?x/key", "BucketNameWrong"),
        ("s3://-bucket/key", "BucketNameWrong"),
        ("s3://bucket/a//b", "PathClimbs"),
        ("s3://bucket//a", "PathClimbs"),
        ("s3://bucket/a/./b", "PathClimbs"),
        ("s3://bucket/a/../../b", "PathClimbs"),
        ("s3://bucket/a\0b", "PathClimbs"),
        ("obs://host", "BucketNameWrong"),
        ("obs://host/", "BucketNameWrong"),
        ("obs://host/v1/AUTH_0a", "BucketNameWrong"),
        ("obs:///container/a", "EndpointWrong"),
        ("obs://ho st/container/a", "EndpointWrong"),
        ("obs://host:port/container/a", "EndpointWrong"),
        ("obs://http://host/container", "EndpointWrong"),
        ("obs://host/container/../a", "PathClimbs"),
    ],
)
def test_what_names_no_place_is_refused(uri: str, code: str) -> None:
    with pytest.raises(BadInputError) as raised:
        store(uri)

    assert raised.value.code == code


@pytest.mark.parametrize("uri", ["s3://id:hidden@bucket/key", "obs://id:hidden@host/bucket/key"])
def test_a_password_in_a_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(BadInputError) as raised:
        store(uri)

    assert raised.value.code == "SecretInUri"
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "plain", "url"),
    [
        ("host.example", "", "https://host.example"),
        ("host.example:8080", "", "https://host.example:8080"),
        ("127.0.0.1:9000", "", "http://127.0.0.1:9000"),
        ("127.1.2.3", "", "http://127.1.2.3"),
        ("localhost:9000", "", "http://localhost:9000"),
        ("[::1]:9000", "", "http://[::1]:9000"),
        ("[::1]", "", "http://[::1]"),
        ("127.evil.example", "", "https://127.evil.example"),
        ("localhost.evil.example", "", "https://localhost.evil.example"),
        ("Store.Local:9000", "other, store.local ", "http://Store.Local:9000"),
        ("store.local:9000", "store.local:9000", "http://store.local:9000"),
        ("store.local:9001", "store.local:9000", "https://store.local:9001"),
        ("store.local", "xstore.local,store.localx", "https://store.local"),
    ],
)
def test_only_loopback_and_what_is_named_speaks_plain_http(
    host: str, plain: str, url: str
) -> None:
    assert addresses.endpoint_url(host, plain) == url
