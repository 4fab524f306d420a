"""An S3 server on loopback, and buckets of it."""

from __future__ import annotations

import dataclasses
import random
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from botocore.config import Config

from tests.infra.storage.server import Proxy, Server

KEY_ID, SECRET = "an-access-key", "a-secret-key"


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A bucket that a test has for itself."""

    host: str
    name: str
    client: Any

    @property
    def keys(self) -> dict[str, int]:
        """Every key with its object's size."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}

    @property
    def uploads(self) -> list[str]:
        """The keys of unfinished uploads."""
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())
        return [each["Key"] for each in found]

    def put(self, key: str, content: bytes | str) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def write(self, key: str, parts: list[int], seed: int = 0) -> bytes:
        """Write an object of parts of these sizes, or by one put if there is but one."""
        content = random.Random(seed).randbytes(sum(parts))
        pieces = [content[sum(parts[:n]) : sum(parts[: n + 1])] for n in range(len(parts))]
        if len(parts) == 1:
            self.put(key, content)
        else:
            self.put_in_parts(key, [piece for piece in pieces if piece])
        return content

    def put_in_parts(self, key: str, parts: list[bytes]) -> None:
        where = {"Bucket": self.name, "Key": key}
        upload = self.client.create_multipart_upload(**where)["UploadId"]
        etags = [
            self.client.upload_part(**where, UploadId=upload, PartNumber=n, Body=part)["ETag"]
            for n, part in enumerate(parts, 1)
        ]
        listed = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
        self.client.complete_multipart_upload(
            **where, UploadId=upload, MultipartUpload={"Parts": listed}
        )

    def get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def etag(self, key: str) -> str:
        return str(self.client.head_object(Bucket=self.name, Key=key)["ETag"]).strip('"')


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that another user can reach."""
    with tempfile.TemporaryDirectory(prefix="modelyard-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    with Server().running() as server:
        yield server


@pytest.fixture
def server(_server: Server) -> Iterator[Server]:
    """The server, which is honest again afterwards."""
    _server.requests.clear()
    yield _server
    _server.lie = None
    _server.deaf_to.clear()


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, to which the settings lead."""
    with Proxy(bucket.host).running() as made:
        point_at(monkeypatch, f"http://{made.host}")
        yield made


@pytest.fixture(scope="session")
def s3_client(_server: Server) -> Any:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://{_server.host}",
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture
def bucket(server: Server, s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, to which the settings lead."""
    made = Bucket(server.host, f"bucket-{uuid.uuid4().hex}", s3_client)
    s3_client.create_bucket(Bucket=made.name)
    point_at(monkeypatch, f"http://{server.host}")
    return made


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Make ``url`` the server of s3:// URIs."""
    for scheme in ("S3", "OBS"):
        monkeypatch.setenv(f"MODELYARD_{scheme}_ACCESS_KEY_ID", KEY_ID)
        monkeypatch.setenv(f"MODELYARD_{scheme}_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", url)
    monkeypatch.setenv("MODELYARD_TRANSFER_PART_MIB", "5")
