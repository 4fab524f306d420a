"""Object storage, against a server on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import BadInputError, ModelyardError
from infra.storage import Store, store
from tests.infra.storage.conftest import Bucket
from tests.infra.storage.contract import StoreContract, Tree, write_tree
from tests.infra.storage.server import Answer, Server


class _ObjectStoreContract(StoreContract):
    """The contract, for URIs below ``root``."""

    root: str

    @pytest.fixture(autouse=True)
    def _bucket(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.root = self.root_of(bucket)

    def root_of(self, bucket: Bucket) -> str:
        raise NotImplementedError

    def store(self, name: str) -> Store:
        return store(f"{self.root}/{name}")

    def fill(self, name: str, content: Tree | str) -> None:
        files = {name: content} if isinstance(content, str) else {
            f"{name}/{key}": text for key, text in content.items()
        }  # fmt: skip
        for key, text in files.items():
            self.bucket.put(f"{self.below}{key}", text)

    @property
    def below(self) -> str:
        return ""

    def stored(self, name: str) -> Tree:
        prefix = f"{self.below}{name}/"
        return {
            key.removeprefix(prefix): self.bucket.get(key).decode()
            for key in self.bucket.keys
            if key.startswith(prefix)
        }

    def everything(self) -> set[str]:
        assert self.bucket.uploads == []
        return {key.removeprefix(self.below) for key in self.bucket.keys}


class TestS3(_ObjectStoreContract):
    def root_of(self, bucket: Bucket) -> str:
        return f"s3://{bucket.name}/deep er/ü"

    @property
    def below(self) -> str:
        return "deep er/ü/"


class TestObs(_ObjectStoreContract):
    def root_of(self, bucket: Bucket) -> str:
        return f"obs://{bucket.host}/v1/AUTH_0123456789abcdef/{bucket.name}"


@pytest.mark.parametrize("scheme", ["s3", "S3", "obs", "OBS"])
def test_schemes_may_be_in_capitals(bucket: Bucket, scheme: str) -> None:
    bucket.put("a", "text")
    host = f"{bucket.host}/" if scheme.lower() == "obs" else ""

    assert store(f"{scheme}://{host}{bucket.name}/a").read() == b"text"


def test_a_server_that_knows_no_ranges_is_read(bucket: Bucket, server: Server) -> None:
    server.deaf_to.add("HTTP_RANGE")
    bucket.put("a", "0123456789")

    assert store(f"s3://{bucket.name}/a").read(offset=3, length=4) == b"3456"
    assert store(f"s3://{bucket.name}/a").read(offset=3) == b"3456789"


@pytest.mark.parametrize("lies", [1, 1000])
def test_wrong_bytes_are_not_read(bucket: Bucket, server: Server, lies: int) -> None:
    bucket.put("a", "0123456789")

    def flip(answer: Answer) -> None:
        nonlocal lies
        if answer.body and "list-type" not in answer.query and lies:
            lies -= 1
            answer.body = b"X" + answer.body[1:]

    server.lie = flip
    if lies == 1:
        assert store(f"s3://{bucket.name}/a").read() == b"0123456789"
        return
    with pytest.raises(ModelyardError) as raised:
        store(f"s3://{bucket.name}/a").read()
    assert raised.value.code == "TransferBroken"


def test_half_a_listing_is_no_listing(bucket: Bucket, server: Server) -> None:
    bucket.put("x/a", "text")
    lies = 2

    def empty(answer: Answer) -> None:
        nonlocal lies
        if "list-type" in answer.query and lies:
            lies -= 1
            answer.body = b""

    server.lie = empty

    assert store(f"s3://{bucket.name}/x").exists()
    assert [entry.name for entry in store(f"s3://{bucket.name}/x").entries()] == ["a"]


def test_the_marker_of_a_folder_is_one(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("out/d/", "out/x/"):
        bucket.put(key, "")
    target = store(f"s3://{bucket.name}/out")

    target.publish(write_tree(tmp_path / "source", {"d/new": "1"}))
    with pytest.raises(BadInputError, match="out/x is a folder, where a file") as raised:
        target.publish(write_tree(tmp_path / "source", {"x": "1"}))

    assert raised.value.code == "NamesClash"
    assert bucket.keys == {"out/d/": 0, "out/d/new": 1, "out/x/": 0}
