"""Files that are published as objects: whole, checked, and gone on with."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from infra.errors import BadInputError, ModelyardError
from infra.storage import publishing, store, transfer
from tests.infra.storage.conftest import Bucket
from tests.infra.storage.contract import as_nobody, write_tree
from tests.infra.storage.server import Answer, Proxy, Server

pytestmark = pytest.mark.integration

MIB = 2**20
PART = 5 * MIB
SIZES = [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 7]


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_FIRST_PAUSE_SECONDS", 0.001)


def write(path: Path, size: int, seed: int = 0) -> bytes:
    content = random.Random(seed).randbytes(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def publish(bucket: Bucket, source: Path, *, whole_entries: bool = False) -> None:
    store(f"s3://{bucket.name}/out").publish(source, whole_entries=whole_entries)


def sent(server: Server) -> list[str]:
    """Key and query of the requests that sent bytes."""
    puts = [one[1:] for one in server.requests if one[0] == "PUT"]
    return [f"{path}?{query}" for path, query in puts if path.count("/") > 1]


def sent_parts(server: Server) -> list[str]:
    return [request for request in sent(server) if "partNumber" in request]


def test_files_of_every_size(bucket: Bucket, server: Server, tmp_path: Path) -> None:
    content = {f"{size}": write(tmp_path / "source" / str(size), size) for size in SIZES}
    told: list[tuple[int, int]] = []

    store(f"s3://{bucket.name}/out").publish(
        tmp_path / "source", lambda done, total: told.append((done, total))
    )

    assert {key: bucket.get(f"out/{key}") for key in content} == content
    assert bucket.uploads == []
    assert told[-1] == (sum(SIZES), sum(SIZES))
    assert told == sorted(told)
    assert len(sent_parts(server)) == 2 + 2 + 3


def test_names_of_every_kind(bucket: Bucket, tmp_path: Path) -> None:
    names = ["sp ace", "a+b", "100%", "%20", "ü/日本", "a&b=c?d#e", "'\"", "<x>", "~!*()"]
    write_tree(tmp_path / "source", {name: name for name in names})

    publish(bucket, tmp_path / "source")
    store(f"s3://{bucket.name}/out").fetch(tmp_path / "copy")

    assert {key.removeprefix("out/") for key in bucket.keys} == set(names)
    assert all((tmp_path / "copy" / name).read_text() == name for name in names)


def test_a_link_is_published_as_what_it_points_to(bucket: Bucket, tmp_path: Path) -> None:
    tree = {"real/a": "1", "real/b/c": "2", "file": "-> real/a", "folder": "-> real/b"}

    publish(bucket, write_tree(tmp_path / "source", tree))

    assert {key: bucket.get(key) for key in bucket.keys} == {
        "out/real/a": b"1", "out/real/b/c": b"2", "out/file": b"1", "out/folder/c": b"2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ({"a": "1", "link": "-> ../secret"}, "LinkPointsOutside"),
        ({"a": "1", "link": "-> nothing"}, "NotAFile"),
        ({"a/b": "1", "a/link": "-> ."}, "LinkLoops"),
        ({"a/b": "1", "a/c/link": "-> ../../a"}, "LinkLoops"),
        ({"a/b": "1", "/".join(["x" * 200] * 6): "2"}, "NameTooLong"),
        ({"a": "1", os.fsdecode(b"\xff"): "2"}, "NameNotUtf8"),
    ],
)
def test_what_cannot_be_an_object_is_refused_first(
    bucket: Bucket, server: Server, tmp_path: Path, tree: dict[str, str], code: str
) -> None:
    write_tree(tmp_path, {"secret": "s"})

    with pytest.raises(BadInputError) as raised:
        publish(bucket, write_tree(tmp_path / "source", tree))

    assert raised.value.code == code
    assert bucket.keys == {}
    assert sent(server) == []


def test_a_pipe_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    os.mkfifo(write_tree(tmp_path / "source", {"a": "1"}) / "pipe")

    with pytest.raises(BadInputError) as raised:
        publish(bucket, tmp_path / "source")

    assert raised.value.code == "NotAFile"


def test_an_object_is_no_place_to_publish(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("out", "text")

    for place in ("out", "out/deeper"):
        with pytest.raises(BadInputError):
            store(f"s3://{bucket.name}/{place}").check_writable()
    with pytest.raises(BadInputError):
        publish(bucket, write_tree(tmp_path / "source", {"a": "1"}))
    assert bucket.keys == {"out": 4}


def test_nothing_is_visible_before_the_large_files_are_there(
    bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    bucket.put("out/large", "old")
    bucket.put("out/small", "old")
    seen: list[dict[str, int]] = []

    def look(answer: Answer) -> None:
        if "partNumber" in answer.query:
            seen.append(bucket.keys)

    server.lie = look
    write(tmp_path / "source" / "large", 2 * PART)
    write(tmp_path / "source" / "small", 100)
    publish(bucket, tmp_path / "source")

    assert seen == [{"out/large": 3, "out/small": 3}] * 2
    assert bucket.keys == {"out/large": 2 * PART, "out/small": 100}


def test_what_is_stale_goes_after_the_new_is_there(
    bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    for key in (
        "out/d/stale",
        "out/d/kept",
        "out/other/kept",
        "out/x/inside",
        "out/d-not",
        "out/e/",
    ):
        bucket.put(key, "" if key.endswith("/") else "old")

    source = write_tree(tmp_path / "source", {"d/kept": "new", "x": "new", "e": "new"})
    publish(bucket, source, whole_entries=True)

    assert {key: bucket.get(key) for key in bucket.keys} == {
        "out/d/kept": b"new", "out/other/kept": b"old", "out/x": b"new", "out/d-not": b"old",
        "out/e": b"new",
    }  # fmt: skip
    methods = [method for method, _, _ in server.requests if method in {"PUT", "DELETE"}]
    assert methods == sorted(methods, reverse=True)


def test_more_stale_objects_than_a_listing_has(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        bucket.put(f"out/d/{number}", "")
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "7")

    publish(bucket, write_tree(tmp_path / "source", {"d/new": "1"}), whole_entries=True)

    assert bucket.keys == {"out/d/new": 1}


@pytest.mark.parametrize("size", [100, 2 * PART], ids=["small", "large"])
@pytest.mark.parametrize("lies", [1, 1000], ids=["once", "always"])
def test_bytes_that_arrive_wrong_are_noticed(
    bucket: Bucket, server: Server, tmp_path: Path, size: int, lies: int
) -> None:
    content = write(tmp_path / "source" / "a", size)

    def flip(answer: Answer) -> None:
        nonlocal lies
        if answer.method == "PUT" and lies and "ETag" in answer.headers:
            lies -= 1
            answer.headers["ETag"] = f'"{"0" * 32}"'

    server.lie = flip
    if lies == 1:
        publish(bucket, tmp_path / "source")
        assert bucket.get("out/a") == content
        return
    with pytest.raises(ModelyardError) as raised:
        publish(bucket, tmp_path / "source")
    assert raised.value.code == "ChecksumMismatch"
    assert bucket.uploads == []


@pytest.mark.parametrize("how", ["reset", "cut"])
@pytest.mark.parametrize("size", [100, 2 * PART + 1], ids=["small", "large"])
def test_a_connection_that_breaks_is_made_again(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, how: str, size: int
) -> None:
    content = write(tmp_path / "source" / "a", size)
    for after in (700, 1300, 2 * MIB, 7 * MIB):
        getattr(proxy, how)("up", after)
    for after in (900, 2000, 4000):
        getattr(proxy, how)("down", after)

    publish(bucket, tmp_path / "source")

    assert bucket.get("out/a") == content
    assert bucket.uploads == []


def test_a_completion_whose_answer_is_lost_is_found_out(
    bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    content = write(tmp_path / "source" / "a", 2 * PART)
    lies = 1

    def lose(answer: Answer) -> None:
        nonlocal lies
        if answer.method == "POST" and "uploadId" in answer.query and lies:
            lies -= 1
            answer.fail(500, "InternalError")

    server.lie = lose
    publish(bucket, tmp_path / "source")

    assert bucket.get("out/a") == content
    assert len(sent_parts(server)) == 2


def test_an_upload_whose_beginning_is_not_answered_is_aborted(
    bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    content = write(tmp_path / "source" / "a", 2 * PART)
    begun: list[str] = []

    def lose(answer: Answer) -> None:
        if answer.method == "POST" and answer.query.startswith("uploads"):
            begun.append(answer.query)
            if len(begun) == 1:
                answer.fail(503, "SlowDown")

    server.lie = lose
    publish(bucket, tmp_path / "source")

    assert len(begun) == 2
    assert bucket.get("out/a") == content
    assert bucket.uploads == []


def _interrupted(
    bucket: Bucket, server: Server, source: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    """A publish that breaks off once so many parts were sent."""
    monkeypatch.setenv("MODELYARD_TRANSFER_THREADS", "1")
    monkeypatch.setenv("MODELYARD_TRANSFER_ATTEMPTS", "1")
    left = parts

    def fail(answer: Answer) -> None:
        nonlocal left
        if "partNumber" in answer.query:
            left -= 1
            if left < 0:
                answer.fail(503, "SlowDown")

    server.lie = fail
    with pytest.raises(ModelyardError) as raised:
        publish(bucket, source)
    assert raised.value.code == "TransferBroken"
    server.lie = None
    server.requests.clear()


def test_parts_that_are_there_are_not_sent_again(
    bucket: Bucket, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write(tmp_path / "source" / "a", 4 * PART)
    _interrupted(bucket, server, tmp_path / "source", monkeypatch, 2)
    assert bucket.keys == {}
    # The third part has arrived as well: only its answer was lost.
    assert bucket.uploads == ["out/a"]

    publish(bucket, tmp_path / "source")

    assert bucket.get("out/a") == content
    assert bucket.uploads == []
    # The fourth was on its way perhaps, before the third's failure was known.
    assert all("partNumber=4" in request for request in sent(server))
    assert len(sent(server)) <= 1


@pytest.mark.parametrize("change", ["bytes", "size"])
def test_a_file_that_is_another_by_now_is_sent_anew(
    bucket: Bucket,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    write(tmp_path / "source" / "a", 3 * PART)
    _interrupted(bucket, server, tmp_path / "source", monkeypatch, 2)
    content = write(tmp_path / "source" / "a", 3 * PART + (change == "size"), seed=1)

    publish(bucket, tmp_path / "source")

    assert bucket.get("out/a") == content
    assert bucket.uploads == []


def test_an_upload_in_other_parts_is_not_gone_on_with(
    bucket: Bucket, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write(tmp_path / "source" / "a", 4 * PART)
    _interrupted(bucket, server, tmp_path / "source", monkeypatch, 2)
    monkeypatch.setenv("MODELYARD_TRANSFER_PART_MIB", "6")

    publish(bucket, tmp_path / "source")

    assert bucket.get("out/a") == content
    assert bucket.uploads == []


@pytest.mark.parametrize("after", [1, 3], ids=["parts", "completion"])
def test_an_upload_that_somebody_ends_is_begun_anew(
    bucket: Bucket, server: Server, tmp_path: Path, after: int
) -> None:
    content = write(tmp_path / "source" / "a", 3 * PART)
    ended: set[str] = set()

    def end(answer: Answer) -> None:
        upload = answer.query.partition("uploadId=")[2].partition("&")[0]
        if upload and not ended and len(sent_parts(server)) >= after:
            ended.add(upload)
        if upload in ended:
            answer.fail(404, "NoSuchUpload")

    server.lie = end
    publish(bucket, tmp_path / "source")

    assert len(ended) == 1
    assert bucket.get("out/a") == content


def test_an_upload_that_is_always_ended_is_given_up(
    bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    write(tmp_path / "source" / "a", 3 * PART)

    def end(answer: Answer) -> None:
        if "partNumber" in answer.query:
            answer.fail(404, "NoSuchUpload")

    server.lie = end
    with pytest.raises(ModelyardError) as raised:
        publish(bucket, tmp_path / "source")

    assert raised.value.code == "UploadDisturbed"
    server.lie = None
    assert bucket.keys == {}


@pytest.mark.parametrize("status", [403, 404, 501])
def test_a_server_that_lists_no_uploads(
    bucket: Bucket, server: Server, tmp_path: Path, status: int
) -> None:
    content = write(tmp_path / "source" / "a", 2 * PART)

    def refuse(answer: Answer) -> None:
        if answer.method == "GET" and answer.query.startswith("uploads"):
            answer.fail(status, "Refused")

    server.lie = refuse
    publish(bucket, tmp_path / "source")

    assert bucket.get("out/a") == content


@pytest.mark.parametrize("size", [100, 2 * PART], ids=["small", "large"])
def test_what_is_there_already_is_not_sent_again(
    bucket: Bucket, server: Server, tmp_path: Path, size: int
) -> None:
    content = write(tmp_path / "source" / "a", size)
    publish(bucket, tmp_path / "source")
    server.requests.clear()

    publish(bucket, tmp_path / "source")

    assert sent(server) == []
    assert bucket.get("out/a") == content


@pytest.mark.parametrize("size", [100, 2 * PART], ids=["small", "large"])
def test_other_bytes_of_the_same_size_are_sent(bucket: Bucket, tmp_path: Path, size: int) -> None:
    write(tmp_path / "source" / "a", size)
    publish(bucket, tmp_path / "source")
    content = write(tmp_path / "source" / "a", size, seed=1)
    os.utime(tmp_path / "source" / "a", (0, 0))  # as a copy that keeps times has it

    publish(bucket, tmp_path / "source")

    assert bucket.get("out/a") == content


@pytest.mark.parametrize("change", ["touch", "truncate", "delete"])
@pytest.mark.parametrize("moment", ["first part", "last part"])
def test_a_file_that_changes_meanwhile_is_refused(
    bucket: Bucket,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    moment: str,
) -> None:
    monkeypatch.setenv("MODELYARD_TRANSFER_THREADS", "1")
    file = tmp_path / "source" / "z"
    write(file, 4 * PART)
    write(tmp_path / "source" / "a", PART + 1)

    def disturb(answer: Answer) -> None:
        number = "partNumber=1" if moment == "first part" else "partNumber=4"
        if number in answer.query and answer.path.endswith("z"):
            if change == "touch":
                os.utime(file, ns=(0, 1))
            elif change == "truncate":
                os.truncate(file, PART)
            else:
                file.unlink(missing_ok=True)

    server.lie = disturb
    with pytest.raises(ModelyardError) as raised:
        publish(bucket, tmp_path / "source")

    assert raised.value.code == "FileChanged"
    assert (bucket.keys, bucket.uploads) == ({}, [])


def test_an_upload_is_kept_only_where_a_repeat_goes_on_with_it(
    bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    write(tmp_path / "source" / "a", 2 * PART)

    def refuse(answer: Answer) -> None:
        if "partNumber" in answer.query:
            answer.fail(403, "AccessDenied")

    server.lie = refuse
    with pytest.raises(BadInputError) as raised:
        publish(bucket, tmp_path / "source")

    assert raised.value.code == "AccessDenied"
    assert bucket.uploads == []


@pytest.mark.parametrize(
    ("size", "part"),
    [(0, 16), (160_000, 16), (160_001, 17), (5 * 2**20, 525)],
)
def test_parts_grow_until_ten_thousand_suffice(size: int, part: int) -> None:
    assert publishing.part_size_for(size * MIB, 16 * MIB) == part * MIB
    assert -(-size // part) <= 10_000


def test_what_may_not_be_read_is_not_published(bucket: Bucket, open_to_all: Path) -> None:
    write(open_to_all / "source" / "a", 100)
    (open_to_all / "source" / "a").chmod(0)

    with as_nobody(), pytest.raises(BadInputError) as raised:
        publish(bucket, open_to_all / "source")

    assert (raised.value.code, bool(raised.value.hint)) == ("NotReadable", True)
    assert (bucket.keys, bucket.uploads) == ({}, [])
