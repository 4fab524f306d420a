from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from infra.errors import BadInputError, NotFoundError
from infra.storage import StoreEntry
from modelyard.pages import downloads
from tests.modelyard.pages.conftest import OTHER, RUN, World, made

LINK = f"/runs/{RUN}/artifact?node=make&output=data&number=0"


def link_in(client: TestClient) -> bool:
    return "Download data" in client.get(f"/runs/{RUN}?node=make").text


def test_a_file_is_downloaded_as_it_is(world: World, client: TestClient) -> None:
    content = "<script>alert(1)</script>" * 300_000  # more than is read at once
    path = world.file("artifacts/make/data", content)
    world.begin_with(made("make", str(path)))
    answer = client.get(LINK)

    assert answer.text == content
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith('attachment; filename="make-data"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert link_in(client)


def test_a_name_ends_as_the_file_does(world: World, client: TestClient) -> None:
    world.begin_with(made("make", f"file://{world.file('artifacts/make/scores.tar.gz')}"))

    assert 'filename="make-data.tar.gz"' in client.get(LINK).headers["content-disposition"]


def test_a_folder_is_downloaded_as_a_zip(world: World, client: TestClient) -> None:
    world.file("artifacts/make/data/a.txt", "a")
    world.file("artifacts/make/data/b/길.txt", "b" * 10**6)
    folder = world.home / "runs" / RUN / "artifacts/make/data"
    world.begin_with(made("make", str(folder)))
    answer = client.get(LINK)

    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: len(archive.read(name)) for name in archive.namelist()} == {
            "a.txt": 1, "b/길.txt": 10**6,
        }  # fmt: skip


def test_each_artifact_of_a_list_has_its_download(world: World, client: TestClient) -> None:
    paths = [str(world.file(f"artifacts/make/{n}", str(n))) for n in range(3)]
    world.begin_with(made("make", paths))

    assert client.get(LINK.replace("number=0", "number=2")).text == "2"
    assert client.get(f"/runs/{RUN}?node=make").text.count("Download data[") == 3


def test_what_a_task_took_from_the_cache_is_downloaded_from_the_run_that_made_it(
    world: World, client: TestClient
) -> None:
    world.begin_with(made("make", str(world.file("artifacts/make/data", "old", run=OTHER))))

    assert client.get(LINK).text == "old"


def test_what_a_task_has_left_in_its_own_folder_is_downloaded(
    world: World, client: TestClient
) -> None:
    world.begin_with(made("make", str(world.file("tasks/make/left", "left"))))

    assert client.get(LINK).text == "left"


@pytest.mark.parametrize(
    "uri",
    [
        "{home}/secret", "{home}/runs", "{home}/runs/{run}", "{home}/runs/{run}/artifacts",
        "{home}/runs/{run}/pipeline.yaml", "{home}/runs/{run}/artifacts/../pipeline.yaml",
        "{home}/runs/{run}/artifacts/../../../secret", "file://{home}/runs/%2e%2e/secret",
        "{home}/runs/{run}/artifacts/make/link", "{home}/runs/{run}/artifacts/make/up/secret",
        "/etc/passwd", "/proc/self/environ", "artifacts/make/data", ".", "{home}/runs/x\0y",
        "{home}/runs/../runs2/artifacts/x", "{home}/runs/{run}/artifacts2/x",
    ],
)  # fmt: skip
def test_nothing_outside_the_folders_of_runs_is_handed_out(
    world: World, client: TestClient, uri: str
) -> None:
    world.file("artifacts/make/data")
    (world.home / "secret").write_text("secret")
    folder = world.home / "runs" / RUN
    (folder / "artifacts/make/link").symlink_to(world.home / "secret")
    (folder / "artifacts/make/up").symlink_to(world.home)
    (folder / "artifacts2").mkdir()
    (folder / "artifacts2/x").write_text("secret")
    (world.home / "runs2/artifacts").mkdir(parents=True)
    (world.home / "runs2/artifacts/x").write_text("secret")
    world.begin_with(made("make", uri.format(home=world.home, run=RUN)))
    answer = client.get(LINK)

    assert answer.status_code in {400, 404}
    assert "lies outside the folders of runs" in answer.text
    assert not link_in(client)


def test_a_folder_with_a_link_that_leads_out_is_refused_whole(
    world: World, client: TestClient
) -> None:
    world.file("artifacts/make/data/a.txt")
    folder = world.home / "runs" / RUN / "artifacts/make/data"
    (folder / "passwd").symlink_to("/etc/passwd")
    world.begin_with(made("make", str(folder)))
    answer = client.get(LINK)

    assert answer.status_code == 400
    assert "points outside it" in answer.text


def test_a_pipe_is_no_artifact(world: World, client: TestClient) -> None:
    world.file("artifacts/make/data")
    pipe = world.home / "runs" / RUN / "artifacts/make/pipe"
    os.mkfifo(pipe)
    world.begin_with(made("make", str(pipe)))

    assert client.get(LINK).status_code == 404


def test_what_is_gone_is_told(world: World, client: TestClient) -> None:
    world.begin_with(made("make", str(world.home / "runs" / RUN / "artifacts/make/data")))
    answer = client.get(LINK)

    assert answer.status_code == 404
    assert "wrote no file, or it was removed" in answer.text
    assert not link_in(client)


@pytest.mark.parametrize("uri", ["gs://bucket/x", "https://example.org/x", "oci://x/y", ""])
def test_what_lies_elsewhere_is_not_offered(world: World, client: TestClient, uri: str) -> None:
    world.begin_with(made("make", uri))

    assert client.get(LINK).status_code == 400
    assert not link_in(client)


@pytest.mark.parametrize(
    "asked",
    [
        "node=none&output=data", "node=make&output=none", "node=make&output=data&number=1",
        "node=make&output=data&number=-1", "node=make&output=data&number=x", "",
        "node=make&output=data&number=%C2%B2", "node=make&output=../data",
    ],
)  # fmt: skip
def test_an_unknown_artifact_is_told(world: World, client: TestClient, asked: str) -> None:
    world.begin_with(made("make", str(world.file("artifacts/make/data"))))
    answer = client.get(f"/runs/{RUN}/artifact?{asked}")

    assert answer.status_code == 404
    assert "page" in answer.text


@pytest.mark.parametrize("run", ["none", "%2e%2e", "%00"])
def test_an_artifact_of_no_run_is_told(client: TestClient, run: str) -> None:
    assert client.get(f"/runs/{run}/artifact?node=make&output=data").status_code == 404


def test_a_hostile_name_is_no_header(world: World, client: TestClient) -> None:
    name = 'x"\r\nSet-Cookie: a=b\r\n길/..'
    path = world.file("artifacts/make/data")
    world.begin_with(made("make", str(path), name))
    answer = client.get(f"/runs/{RUN}/artifact", params={"node": "make", "output": name})

    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    told = answer.headers["content-disposition"]
    assert told.count('"') == 2
    assert "%EA%B8%B8" in told


class FakeStore:
    """A bucket."""

    uri = "s3://bucket/model.bin"
    files = {"model.bin": b"m" * 10}

    def is_directory(self) -> bool:
        return len(self.files) > 1

    def entries(self) -> list[StoreEntry]:
        return [StoreEntry(name, len(data)) for name, data in self.files.items()]

    def read(self, name: str = "", *, offset: int = 0, length: int | None = None) -> bytes:
        data = self.files[name or "model.bin"]
        return data[offset:][:length]


def test_what_lies_in_a_store_is_read_from_it(
    world: World, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(downloads.storage, "store", lambda uri: asked.append(uri) or FakeStore())
    monkeypatch.setattr(downloads, "_CHUNK", 3)
    world.begin_with(made("make", "s3://bucket/model.bin"))

    assert link_in(client)  # without asking the store
    assert asked == []
    answer = client.get(LINK)
    assert answer.content == b"m" * 10
    assert 'filename="make-data.bin"' in answer.headers["content-disposition"]
    assert asked == ["s3://bucket/model.bin"]


def test_a_file_that_becomes_shorter_is_not_told_as_whole() -> None:
    store = FakeStore()
    part = downloads._Part("model.bin", "", 20)

    with pytest.raises(OSError, match="shorter"):
        list(downloads._read(store, part))  # type: ignore[arg-type]


def test_of_a_file_that_grows_as_much_is_told_as_was_promised() -> None:
    part = downloads._Part("model.bin", "", 4)

    assert b"".join(downloads._read(FakeStore(), part)) == b"mmmm"  # type: ignore[arg-type]


def test_errors_have_codes(tmp_path: Path) -> None:
    for uri, code in (("gs://x", "UnknownScheme"), ("/etc/passwd", "ArtifactOutside")):
        with pytest.raises(BadInputError) as refused:
            downloads.place(uri, tmp_path)
        assert refused.value.code == code
    with pytest.raises(NotFoundError) as missing:
        downloads.place(str(tmp_path / "run/artifacts/x"), tmp_path)
    assert missing.value.code == "ArtifactGone"
