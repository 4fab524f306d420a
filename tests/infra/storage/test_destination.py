"""What is there where objects are published: nothing of it is replaced that may not be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.storage import store
from infra.storage.base import FilesExistError
from tests.infra.storage.conftest import Bucket
from tests.infra.storage.server import Answer, Server
from tests.infra.storage.test_publishing import PART, write

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("size", "found"),  # the server's double knows no condition for what an upload replaces
    [(5, False), (5, True), (PART + 1, False)],
    ids=["small", "small in place of another", "large"],
)
def test_an_object_that_comes_while_others_become_visible_is_not_replaced(
    bucket: Bucket, server: Server, tmp_path: Path, size: int, *, found: bool
) -> None:
    write(tmp_path / "b", size)
    if found:
        bucket.put("out/b", "old")
    target = store(f"s3://{bucket.name}/out")
    replaceable = target.versions(["b"])
    listings = 0

    def come(answer: Answer) -> None:
        nonlocal listings
        listings += answer.method == "GET" and "prefix=out%2F" in answer.query
        if listings == 2 + (size > PART):  # once it is clear that nothing is in the way
            listings = 99
            bucket.put("out/b", "mine")

    server.lie = come
    with pytest.raises(FilesExistError) as raised:
        target.publish(tmp_path, replaceable=replaceable)

    assert raised.value.names == ["b"]
    assert bucket.get("out/b") == b"mine"
    assert bucket.uploads == []


@pytest.mark.parametrize("size", [5, PART + 1], ids=["small", "large"])
@pytest.mark.parametrize("way", ["ignores", "refuses", "answer lost"])
def test_conditions_that_a_server_does_not_know_or_answers_late(
    bucket: Bucket, server: Server, tmp_path: Path, size: int, way: str
) -> None:
    content = write(tmp_path / "b", size)
    lost = 1

    def lie(answer: Answer) -> None:
        nonlocal lost
        is_write = answer.method == "PUT" if size == 5 else "uploadId" in answer.query
        if is_write and (size == 5 or answer.method == "POST") and lost:
            lost = 0
            answer.fail(*((501, "NotImplemented") if way == "refuses" else (500, "InternalError")))

    if way == "ignores":
        server.deaf_to |= {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"}
    else:
        server.lie = lie

    store(f"s3://{bucket.name}/out").publish(tmp_path, replaceable={})

    assert bucket.get("out/b") == content
    assert bucket.uploads == []


@pytest.mark.parametrize(
    ("name", "code"),
    [("/".join(["x" * 200] * 6), "NameTooLong"), (os.fsdecode(b"\xff"), "NameNotUtf8")],
)
def test_a_name_that_no_object_has_is_refused_early(bucket: Bucket, name: str, code: str) -> None:
    with pytest.raises(BadInputError) as raised:
        store(f"s3://{bucket.name}/out").check_writable(["a", name])

    assert raised.value.code == code
