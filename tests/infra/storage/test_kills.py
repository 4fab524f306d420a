"""Transfers in processes that are killed with SIGKILL at random points, and gone on with."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from infra.storage import partial
from tests.infra.storage import children
from tests.infra.storage.conftest import Bucket
from tests.infra.storage.server import Proxy, Server

pytestmark = pytest.mark.integration

MIB = 2**20
PART = 5 * MIB
THREADS = 2
KILLS = 4  # of each kind

_LARGE = {"large": 11 * PART + 11, "deep/larger": 7 * PART}
_SMALL = {f"small/{number}": 1000 + number for number in range(20)}
SIZE = sum(_LARGE.values()) + sum(_SMALL.values())


@pytest.fixture(scope="module")
def forked() -> Callable[..., BaseProcess]:
    """Starts a child from a process that has everything imported, as ours are started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["infra.storage.s3", children.__name__])
    return lambda target, *arguments: context.Process(target=target, args=arguments)


@pytest.fixture
def env(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("MODELYARD_TRANSFER_THREADS", str(THREADS))
    return {name: value for name, value in os.environ.items() if name.startswith("MODELYARD_")}


def _content() -> dict[str, bytes]:
    return {
        name: random.Random(name).randbytes(size) for name, size in {**_LARGE, **_SMALL}.items()
    }


def _laid_out(folder: Path) -> dict[str, bytes]:
    """The content, as files below ``folder``."""
    content = _content()
    for name, data in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return content


def _kill_again_and_again(
    proxy: Proxy, way: str, start: Callable[[], BaseProcess], seed: int
) -> int:
    """Start a child and kill it after a random number of bytes; how often it was killed.

    Once it was killed often enough, or was too quick for that, it is left to end.
    """
    points = random.Random(seed)
    killed = 0
    while True:
        child = start()
        child.start()
        assert child.pid is not None
        if killed < KILLS:
            kill = functools.partial(os.kill, child.pid, signal.SIGKILL)
            proxy.at(way, points.randrange(2 * PART, 5 * PART), kill)
        child.join(60)
        proxy.forgive()
        if child.exitcode == 0:
            return killed
        assert child.exitcode == -signal.SIGKILL
        killed += 1


def test_a_publish_that_is_killed_is_gone_on_with(
    bucket: Bucket,
    proxy: Proxy,
    env: dict[str, str],
    forked: Callable[..., BaseProcess],
    tmp_path: Path,
) -> None:
    content = _laid_out(tmp_path)
    bucket.put("out/large", "old")
    bucket.put("out/deep/own", "old")
    uri = f"s3://{bucket.name}/out"

    killed = _kill_again_and_again(
        proxy, "up", lambda: forked(children.publish, uri, str(tmp_path), env), 2
    )

    assert killed == KILLS
    assert {key: bucket.get(f"out/{key}") for key in content} == content
    assert set(bucket.keys) == {f"out/{name}" for name in (*content, "deep/own")}
    assert bucket.uploads == []
    # Beside the whole once, each kill costs the parts that were on their way.
    assert proxy.passed["up"] < SIZE + KILLS * (THREADS * PART + MIB)


@pytest.mark.parametrize(
    "in_parts",
    [True, pytest.param(False, marks=pytest.mark.soak)],
    ids=["in parts", "in one piece"],
)
def test_a_fetch_that_is_killed_is_gone_on_with(
    bucket: Bucket,
    proxy: Proxy,
    env: dict[str, str],
    forked: Callable[..., BaseProcess],
    tmp_path: Path,
    *,
    in_parts: bool,
) -> None:
    content = _content()
    for name, data in content.items():
        if in_parts and name in _LARGE:
            pieces = [data[start : start + PART] for start in range(0, len(data), PART)]
            bucket.put_in_parts(f"out/{name}", pieces)
        else:
            bucket.put(f"out/{name}", data)
    uri = f"s3://{bucket.name}/out"
    seen: list[bool] = []

    def start() -> BaseProcess:
        seen.append((tmp_path / "copy").exists())
        return forked(children.fetch, uri, str(tmp_path / "copy"), env)

    killed = _kill_again_and_again(proxy, "down", start, 10)

    assert killed == KILLS
    assert not any(seen)
    copied = {name: (tmp_path / "copy" / name).read_bytes() for name in content}
    assert copied == content
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert not partial.folder_of(tmp_path / "copy", uri).exists()
    assert proxy.passed["down"] < SIZE + KILLS * (THREADS * PART + MIB)


def test_a_publish_that_is_killed_in_its_burst_is_mended(
    bucket: Bucket,
    proxy: Proxy,
    server: Server,
    env: dict[str, str],
    forked: Callable[..., BaseProcess],
    tmp_path: Path,
) -> None:
    content = _laid_out(tmp_path)
    bucket.put("out/small/own", "old")
    uri = f"s3://{bucket.name}/out"

    def start() -> BaseProcess:
        child = forked(children.publish, uri, str(tmp_path), env)
        child.start()
        return child

    # In the middle of the small files, when the large ones are complete.
    child = None

    def kill(answer: object) -> None:
        done = [
            path for method, path, _ in server.requests if method == "PUT" and "/small/" in path
        ]
        if len(done) >= 10 and child is not None and child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)

    server.requests.clear()
    server.lie = kill
    child = start()
    child.join(60)
    server.lie = None
    assert child.exitcode == -signal.SIGKILL
    assert "out/large" in bucket.keys

    before = proxy.passed["up"]
    repeat = start()
    repeat.join(60)

    assert repeat.exitcode == 0
    assert set(bucket.keys) == {f"out/{name}" for name in (*content, "small/own")}
    assert {key: bucket.get(f"out/{key}") for key in content} == content
    assert proxy.passed["up"] - before < MIB  # nothing large was sent again
