"""Requests as they are sent."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest, AWSResponse

from infra.settings import Settings
from infra.storage import addresses, clients
from infra.storage.bucket import Bucket, MultipartUpload
from infra.storage.transfer import Transfer
from tests.infra.storage.conftest import KEY_ID, SECRET


class _Nothing:
    """An answer's empty body."""

    def stream(self) -> Iterator[bytes]:
        return iter(())


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["object", "part"])
def test_the_signature_covers_every_byte(scheme: str, kind: str) -> None:
    content, sent = b"0123456789", []
    md5 = hashlib.md5(content).hexdigest()
    settings = Settings(
        s3_endpoint_url=f"{scheme}://storage.invalid",
        s3_access_key_id=KEY_ID,
        s3_secret_access_key=SECRET,
    )
    uri = "s3://bucket/key"
    client = clients.client(uri, addresses.parse(uri), settings)

    def answer(request: AWSRequest, **_: Any) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 200, {"ETag": f'"{md5}"'}, _Nothing())

    client.meta.events.register_first("before-send.s3", answer)
    bucket = Bucket(uri, client, "bucket", Transfer(settings))
    if kind == "object":
        bucket.put("key", content, md5)
    else:
        bucket.put_part(MultipartUpload("key", "upload"), 1, content, md5)

    [request] = sent
    signed = request.headers["Authorization"].decode()
    by_md5 = request.headers.get("Content-MD5")
    by_sha = request.headers["X-Amz-Content-SHA256"].decode()
    assert "x-amz-content-sha256" in signed
    if scheme == "https":
        assert by_sha == "UNSIGNED-PAYLOAD"
    else:
        assert by_sha == hashlib.sha256(content).hexdigest()
    if scheme == "https" or kind == "object":
        assert base64.b64decode(by_md5).hex() == md5
        assert "content-md5" in signed
    assert "x-amz-checksum" not in signed
    assert "x-amz-trailer" not in signed
