"""Objects that are fetched: whole, checked, and gone on with."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, ConflictError, DiskFullError, ModelyardError
from infra.storage import fetching, partial, store, transfer
from tests.infra.storage.conftest import Bucket
from tests.infra.storage.contract import read_tree
from tests.infra.storage.server import Answer, Proxy, Server

pytestmark = pytest.mark.integration

MIB = 2**20
PART = 5 * MIB

# How an object was written: the sizes of its parts, or one put. Its ETag is made accordingly.
SHAPES = {
    "empty": [0],
    "small": [100],
    "one piece, large": [2 * PART + 7],
    "one piece, whole ranges": [2 * PART],
    "parts like ours": [PART, PART, 7],
    "larger parts": [6 * MIB, 6 * MIB, 1],
    "huge parts": [7 * MIB, 7 * MIB, 1],
    "one part": [PART + 1, 0],
    "odd parts": [6 * MIB, 5 * MIB, 7 * MIB, 3],
}
CHECKED = [name for name in SHAPES if name not in {"empty", "odd parts"}]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(fetching, "_LARGEST_RANGE", 6 * MIB)


def is_body(answer: Answer) -> bool:
    return answer.method == "GET" and "list-type" not in answer.query and bool(answer.body)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_of_any_shape_is_fetched(bucket: Bucket, tmp_path: Path, shape: str) -> None:
    content = bucket.write("x/a", SHAPES[shape])

    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert (tmp_path / "copy" / "a").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("shape", CHECKED)
@pytest.mark.parametrize("lies", [1, 1000], ids=["once", "always"])
def test_wrong_bytes_are_noticed(
    bucket: Bucket, server: Server, tmp_path: Path, shape: str, lies: int
) -> None:
    content = bucket.write("x/a", SHAPES[shape])

    def flip(answer: Answer) -> None:
        nonlocal lies
        if is_body(answer) and lies:
            lies -= 1
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ 1])

    server.lie = flip
    if lies == 1:
        store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")
        assert (tmp_path / "copy" / "a").read_bytes() == content
        return
    with pytest.raises(ModelyardError) as raised:
        store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")
    assert raised.value.code == "ChecksumMismatch"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", ["small", "one piece, large"])
def test_an_etag_of_an_encrypted_object_is_not_taken_for_a_checksum(
    bucket: Bucket, server: Server, tmp_path: Path, shape: str
) -> None:
    content = bucket.write("x/a", SHAPES[shape])
    etag = bucket.etag("x/a")
    server.deaf_to.add("HTTP_IF_MATCH")

    def encrypt(answer: Answer) -> None:
        answer.headers["x-amz-server-side-encryption"] = "aws:kms"
        answer.headers = {name: v.replace(etag, "0" * 32) for name, v in answer.headers.items()}
        answer.body = answer.body.replace(etag.encode(), b"0" * 32)

    server.lie = encrypt
    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert (tmp_path / "copy" / "a").read_bytes() == content


def test_a_server_that_knows_no_parts_is_believed_by_size(
    bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    content = bucket.write("x/a", SHAPES["larger parts"])

    def forget(answer: Answer) -> None:
        answer.headers.pop("x-amz-mp-parts-count", None)

    server.lie = forget
    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert (tmp_path / "copy" / "a").read_bytes() == content


@pytest.mark.parametrize("how", ["reset", "cut"])
@pytest.mark.parametrize("shape", ["small", "one piece, large", "larger parts"])
def test_a_connection_that_breaks_is_made_again(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, how: str, shape: str
) -> None:
    content = bucket.write("x/a", SHAPES[shape])
    for after in (600, 1200, 2 * MIB, 7 * MIB):
        getattr(proxy, how)("down", after)

    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert (tmp_path / "copy" / "a").read_bytes() == content


def test_a_connection_that_always_breaks_is_given_up_and_gone_on_with(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_TRANSFER_THREADS", "1")
    content = bucket.write("x/a", [4 * PART])
    for number in range(200):
        proxy.reset("down", 3 * PART + 100_000 + number * 50_000)

    with pytest.raises(ModelyardError) as raised:
        store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert raised.value.code == "TransferBroken"
    assert not (tmp_path / "copy").exists()
    assert len(list(tmp_path.iterdir())) == 1

    proxy.forgive()
    before = proxy.passed["down"]
    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert (tmp_path / "copy" / "a").read_bytes() == content
    assert proxy.passed["down"] - before < 2 * PART
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def _interrupted(
    bucket: Bucket, proxy: Proxy, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A fetch of ``x`` that broke off in the middle; its hidden folder."""
    monkeypatch.setenv("MODELYARD_TRANSFER_THREADS", "1")
    monkeypatch.setenv("MODELYARD_TRANSFER_ATTEMPTS", "1")
    for number in range(20):
        proxy.reset("down", PART + PART // 2 + number * 1000)
    with pytest.raises(ModelyardError):
        store(f"s3://{bucket.name}/x").fetch(destination)
    proxy.forgive()
    return partial.folder_of(destination, f"s3://{bucket.name}/x")


@pytest.mark.parametrize("shape", ["one piece, large", "parts like ours", "odd parts"])
def test_parts_that_did_not_reach_the_disk_are_fetched_again(
    bucket: Bucket,
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: str,
) -> None:
    content = bucket.write(
        "x/a", [*SHAPES[shape], 0] if shape != "one piece, large" else [3 * PART]
    )
    folder = _interrupted(bucket, proxy, tmp_path / "copy", monkeypatch)
    with (folder / "data" / "a").open("r+b") as file:
        file.write(b"\0" * 1000)

    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert (tmp_path / "copy" / "a").read_bytes() == content


def test_an_object_that_was_replaced_meanwhile_is_fetched_anew(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("x/a", [PART, PART, PART])
    bucket.put("x/gone/b", "text")
    _interrupted(bucket, proxy, tmp_path / "copy", monkeypatch)
    content = bucket.write("x/a", [PART, PART, PART], seed=1)
    bucket.client.delete_object(Bucket=bucket.name, Key="x/gone/b")
    bucket.put("x/gone", "now a file")

    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert (tmp_path / "copy" / "a").read_bytes() == content
    assert (tmp_path / "copy" / "gone").read_text() == "now a file"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "copy", "gone"]


@pytest.mark.parametrize("tail", [b"", b'["a", "et', b"\xff\xfe{}[]\n", b"[1]\n"])
def test_a_journal_that_a_kill_has_cut_is_read(tmp_path: Path, tail: bytes) -> None:
    destination = tmp_path / "copy"
    with partial.opened(destination, "s3://x/y") as hidden:
        assert hidden is not None
        hidden.record("a", "etag", 5, 0, "md5")
    with (partial.folder_of(destination, "s3://x/y") / "journal").open("ab") as journal:
        journal.write(tail)
    with partial.opened(destination, "s3://x/y") as hidden:
        assert hidden is not None
        hidden.record("a", "etag", 5, 1, "other")

    with partial.opened(destination, "s3://x/y") as hidden:
        assert hidden is not None
        assert hidden.complete("a", "etag", 5) == {0: "md5", 1: "other"}
        assert hidden.complete("a", "other", 5) == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".copy.0123456789abcdef.partial", True),
        (".a.b\n.0123456789abcdef.partial", True),
        (".copy.0123456789abcdef0123456789abcdef.partial", False),  # a copy of files: no use
        ("copy.0123456789abcdef.partial", False),
        (".partial", False),
    ],
)
def test_what_can_be_gone_on_with_is_known_by_its_name(name: str, *, expected: bool) -> None:
    assert partial.is_partial(Path(name)) is expected
    assert partial.is_partial(partial.folder_of(Path("/x/copy"), "s3://x/y"))


@pytest.mark.parametrize("shape", ["small", "larger parts"])
def test_an_object_that_changes_while_it_is_fetched_is_begun_anew(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, shape: str
) -> None:
    bucket.write("x/a", SHAPES[shape])
    new: list[bytes] = []
    # The listing has passed by then, and no byte of the object.
    proxy.at("down", 400, lambda: new.append(bucket.write("x/a", SHAPES[shape], seed=1)))

    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert [(tmp_path / "copy" / "a").read_bytes()] == new


@pytest.mark.parametrize("deaf", [False, True], ids=["IfMatch", "no IfMatch"])
def test_an_object_that_changes_all_the_time_is_given_up(
    bucket: Bucket, server: Server, tmp_path: Path, *, deaf: bool
) -> None:
    bucket.write("x/a", [2 * PART + 1])
    if deaf:
        server.deaf_to.add("HTTP_IF_MATCH")

    def rewrite(answer: Answer) -> None:
        if "list-type" in answer.query:
            bucket.write("x/a", [2 * PART + 1], seed=len(server.requests))

    server.lie = rewrite
    with pytest.raises(ModelyardError) as raised:
        store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert raised.value.code == "ObjectChanged"
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_deleted_meanwhile_is_named(
    bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    bucket.put("x/a", "text")

    def delete(answer: Answer) -> None:
        if "list-type" in answer.query:
            bucket.client.delete_object(Bucket=bucket.name, Key="x/a")

    server.lie = delete
    with pytest.raises(ModelyardError) as raised:
        store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert raised.value.code == "ObjectChanged"
    assert "x/a" in raised.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        (["x/../b"], "PathClimbs"),
        (["x/.."], "PathClimbs"),
        (["x/./b"], "PathClimbs"),
        (["x/a/../../b"], "PathClimbs"),
        (["x//etc/passwd"], "PathClimbs"),
        (["x/a//b"], "PathClimbs"),
        (["x/a/"], "PathClimbs"),
        (["x/a", "x/a/b"], "NamesClash"),
        (["x/a", "x/a-b", "x/a/b/c"], "NamesClash"),
        (["x/" + "ü" * 128], "NameTooLong"),
    ],
)
def test_names_that_no_folder_can_hold_are_refused(
    bucket: Bucket, server: Server, tmp_path: Path, keys: list[str], code: str
) -> None:
    # The server itself would never store some of them: it lists them all the same.
    for number in range(len(keys)):
        bucket.put(f"x/{number}", "text")

    def rename(answer: Answer) -> None:
        if "list-type" in answer.query:
            for number, key in enumerate(keys):
                old = f"<Key>x/{number}</Key>".encode()
                answer.body = answer.body.replace(old, f"<Key>{key}</Key>".encode())

    server.lie = rename
    (tmp_path / "inner").mkdir()
    with pytest.raises(BadInputError) as raised:
        store(f"s3://{bucket.name}/x").fetch(tmp_path / "inner" / "copy")

    assert raised.value.code == code
    assert [path.name for path in tmp_path.rglob("*")] == ["inner"]


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(BadInputError):
        store("s3://bucket/x").read("a\0b")


def test_marks_of_empty_folders_are_left_out(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("x/", "x/empty/", "x/full/", "x/full/a"):
        bucket.put(key, "1" if key.endswith("a") else "")

    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")
    store(f"s3://{bucket.name}/x/empty").fetch(tmp_path / "empty")

    assert read_tree(tmp_path / "copy") == {"full/a": "1"}
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_whole_bucket_is_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("a", "deep/b"):
        bucket.put(key, key)
    whole = store(f"s3://{bucket.name}")

    whole.fetch(tmp_path / "copy")

    assert read_tree(tmp_path / "copy") == {"a": "a", "deep/b": "deep/b"}
    assert [entry.name for entry in whole.entries()] == ["a", "deep/b"]
    assert (whole.exists(), whole.is_directory(), whole.read("deep/b")) == (True, True, b"deep/b")


def test_more_objects_than_a_listing_has(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:04}" for number in range(25)]
    for name in names:
        bucket.put(f"x/{name}", name)
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "8")
    told: list[tuple[int, int]] = []

    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy", lambda *done: told.append(done))

    assert read_tree(tmp_path / "copy") == {name: name for name in names}
    assert told[-1] == (100, 100)
    assert told == sorted(told)


@pytest.mark.parametrize("same", [True, False], ids=["same destination", "other destinations"])
def test_many_fetches_of_one_uri_at_once(bucket: Bucket, tmp_path: Path, *, same: bool) -> None:
    content = bucket.write("x/a", [2 * PART])
    places = [tmp_path / ("copy" if same else f"copy{number}") for number in range(4)]

    def fetch(place: Path) -> None:
        store(f"s3://{bucket.name}/x").fetch(place)

    with ThreadPoolExecutor(4) as pool:
        ended = [pool.submit(fetch, place) for place in places]
    refused = [future.exception() for future in ended]

    # Whoever came when the destination was there already is told so.
    assert all(error is None or isinstance(error, ConflictError) for error in refused)
    assert all((place / "a").read_bytes() == content for place in places)
    assert hidden_in(tmp_path) == []


def hidden_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_destination_that_is_there_is_kept(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("x/a", "new")
    (tmp_path / "copy").mkdir()

    with pytest.raises(ConflictError) as raised:
        store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert raised.value.code == "DestinationExists"
    assert list(tmp_path.rglob("*")) == [tmp_path / "copy"]


def _no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=PART))


def _full_later(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def full(descriptor: int, block: bytes, offset: int) -> int:
        if offset > PART:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, block, offset)

    monkeypatch.setattr(fetching.os, "pwrite", full)


@pytest.mark.parametrize("make_full", [_no_room, _full_later])
def test_a_full_disk_leaves_nothing(
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_full: Callable[[pytest.MonkeyPatch], Any],
) -> None:
    bucket.write("x/a", [3 * PART])
    make_full(monkeypatch)

    with pytest.raises(DiskFullError):
        store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={2 * PART}", "none", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("known", [True, False], ids=["seen before", "filled meanwhile"])
def test_a_disk_that_is_really_full(
    bucket: Bucket, small_disk: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    bucket.write("x/a", [3 * PART])
    if not known:
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**40))

    with pytest.raises(DiskFullError):
        store(f"s3://{bucket.name}/x").fetch(small_disk / "copy")

    assert list(small_disk.iterdir()) == []


def test_what_is_stopped_from_outside_is_gone_on_with(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_TRANSFER_THREADS", "1")
    content = bucket.write("x/a", [4 * PART])

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy", stop)
    assert not (tmp_path / "copy").exists()
    before = proxy.passed["down"]
    store(f"s3://{bucket.name}/x").fetch(tmp_path / "copy")

    assert (tmp_path / "copy" / "a").read_bytes() == content
    assert proxy.passed["down"] - before < 2 * PART


def test_the_journal_holds_no_more_than_it_must(tmp_path: Path) -> None:
    with partial.opened(tmp_path / "copy", "s3://x/y") as hidden:
        assert hidden is not None
        hidden.record("a", "etag", 5, 0, "md5")
        hidden.forget("a", "etag", 5)
        assert hidden.complete("a", "etag", 5) == {}
    journal = partial.folder_of(tmp_path / "copy", "s3://x/y") / "journal"

    assert [json.loads(line) for line in journal.read_text().splitlines()] == [
        ["a", "etag", 5, 0, "md5"],
        ["a", "etag", 5, 0, "wrong"],
    ]
