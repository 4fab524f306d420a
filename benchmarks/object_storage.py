"""A folder to object storage and back, on loopback: ours, and plain boto3.

The server is ``rclone serve s3`` on a folder of this disk. Its peer is what one writes by hand:
``upload_file`` and ``download_file`` with boto3's defaults for every file, once one after the
other and once from a pool of threads; the quicker of the two is the peer. Ours compares every
byte's checksum on the way, the peer's defaults do not on the way down.

One more transfer in each direction is killed with SIGKILL in its middle and begun again.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import boto3.session

from benchmarks import peers
from benchmarks.machine import Calm
from benchmarks.results import Comparison
from infra import tcp_ports
from infra.storage import store

REPETITIONS = 3
_MIB = 2**20
_KEY_ID, _SECRET, _BUCKET = "benchmark", "not-a-secret", "bucket"
_POOL = 10  # boto3's own number of threads for one file
_START_SECONDS = 30.0

# One transfer, which says how far it is.
_CHILD = """\
import sys
from pathlib import Path
from infra.storage import store
verb, uri, path = sys.argv[1:]
getattr(store(uri), verb)(Path(path), lambda done, total: print(done, total, flush=True))
"""


@dataclass(frozen=True)
class _Size:
    large: int
    large_mib: int
    small: int

    @property
    def mib(self) -> int:
        return self.large * self.large_mib


_FULL = _Size(large=4, large_mib=500, small=500)
_QUICK = _Size(large=2, large_mib=40, small=40)


@dataclass(frozen=True)
class _Timed:
    """Seconds on the clock, and seconds of this process's cores."""

    wall: float
    cpu: float


@contextlib.contextmanager
def _server(home: Path) -> Iterator[str]:
    """The server's address, and the settings that lead to it."""
    rclone = peers.BIN / "rclone"
    if not rclone.exists():
        raise RuntimeError("rclone is missing: `make .venv/.dev` installs it.")
    (home / "served" / _BUCKET).mkdir(parents=True)
    (port,) = tcp_ports.free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}",
               "--auth-key", f"{_KEY_ID},{_SECRET}", str(home / "served")]  # fmt: skip
    variables = {
        "MODELYARD_S3_ENDPOINT_URL": url,
        "MODELYARD_S3_ACCESS_KEY_ID": _KEY_ID,
        "MODELYARD_S3_SECRET_ACCESS_KEY": _SECRET,
    }
    with peers.running(command, home) as process, mock.patch.dict(os.environ, variables):
        _wait_until_it_answers(url, process)
        yield url


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:  # that it wants a signature is an answer as well
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("rclone serve s3 did not start.")


def _fill(folder: Path, size: _Size) -> Path:
    """A folder of a few large and many small files."""
    numbers = random.Random(0)
    folder.mkdir()
    for number in range(size.large):
        with (folder / f"large-{number}").open("wb") as file:
            for _ in range(size.large_mib):
                file.write(numbers.randbytes(_MIB))
    for number in range(size.small):
        path = folder / f"folder-{number % 10}" / f"small-{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(numbers.randbytes(numbers.randrange(100, 100_000)))
    return folder


def _check_same(one: Path, other: Path) -> None:
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    there = sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    _, different, unreadable = filecmp.cmpfiles(one, other, names, shallow=False)
    if names != there or different or unreadable:
        raise RuntimeError(f"{other} is not what {one} is: {different[:5]}{unreadable[:5]}")


def _client(url: str) -> Any:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=_KEY_ID,
        aws_secret_access_key=_SECRET,
    )


def _each(names: list[str], move: Callable[[str], None], threads: int) -> None:
    if threads == 1:
        for name in names:
            move(name)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(move, names))


@dataclass(frozen=True)
class _Round:
    """The places of one repetition."""

    home: Path
    source: Path
    url: str
    number: int

    def ours_up(self) -> None:
        store(f"s3://{_BUCKET}/ours-{self.number}").publish(self.source)

    def ours_down(self) -> None:
        store(f"s3://{_BUCKET}/ours-{self.number}").fetch(self.home / "down" / "ours")

    def peer_up(self, threads: int) -> None:
        client = _client(self.url)
        names = [str(p.relative_to(self.source)) for p in self.source.rglob("*") if p.is_file()]

        def move(name: str) -> None:
            key = f"peer-{threads}-{self.number}/{name}"
            client.upload_file(str(self.source / name), _BUCKET, key)

        _each(names, move, threads)

    def peer_down(self, threads: int) -> None:
        client = _client(self.url)
        prefix = f"peer-{threads}-{self.number}/"
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=_BUCKET, Prefix=prefix)
        keys = [each["Key"] for page in pages for each in page["Contents"]]

        def move(key: str) -> None:
            path = self.home / "down" / f"peer-{threads}" / key.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(_BUCKET, key, str(path))

        _each(keys, move, threads)

    def actions(self, way: str) -> list[tuple[str, Callable[[], None]]]:
        """Each side's transfer in that direction."""
        ours, peer = getattr(self, f"ours_{way}"), getattr(self, f"peer_{way}")
        return [
            ("ours", ours),
            ("peer one by one", lambda: peer(1)),
            ("peer pooled", lambda: peer(_POOL)),
        ]

    def check_and_clear(self, client: Any) -> None:
        """Compare what came back, and make room."""
        for folder in (self.home / "down").iterdir():
            _check_same(self.source, folder)
            shutil.rmtree(folder)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=_BUCKET)
        for key in [each["Key"] for page in pages for each in page.get("Contents", ())]:
            client.delete_object(Bucket=_BUCKET, Key=key)


def _timed(action: Callable[[], None]) -> _Timed:
    os.sync()  # what was written before is no longer waiting for the disk
    wall, cpu = time.monotonic(), time.process_time()
    action()
    return _Timed(time.monotonic() - wall, time.process_time() - cpu)


def _transfers(
    home: Path, source: Path, url: str, repetitions: int, calm: Calm
) -> dict[str, list[_Timed]]:
    found: dict[str, list[_Timed]] = {}
    for number in range(repetitions):
        this = _Round(home, source, url, number)
        (home / "down").mkdir(exist_ok=True)
        for way in ("up", "down"):
            actions = this.actions(way)
            for who, action in actions if number % 2 == 0 else reversed(actions):
                calm.wait()
                found.setdefault(f"{who} {way}", []).append(_timed(action))
        this.check_and_clear(_client(url))
    return found


def _killed(verb: str, uri: str, path: Path) -> float:
    """Kill a transfer in its middle and begin it again; the seconds of the second time."""
    command = [sys.executable, "-c", _CHILD, verb, uri, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            done, total = map(int, line.split())
            if done >= total / 2:
                child.send_signal(signal.SIGKILL)
                break
    if child.returncode != -signal.SIGKILL:
        raise RuntimeError(f"The {verb} ended before it was killed.")
    began = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def _compared(
    found: dict[str, list[_Timed]], way: str, what: str
) -> tuple[Comparison, Comparison]:
    def wall(who: str) -> list[float]:
        return [each.wall for each in found[f"{who} {way}"]]

    peers_of = ("peer one by one", "peer pooled")
    best = min(peers_of, key=lambda who: statistics.median(wall(who)))
    name = f"boto3, {best.removeprefix('peer ')}"
    limit = statistics.median(wall(best))
    cores = [[each.cpu for each in found[f"{who} {way}"]] for who in ("ours", best)]
    return (
        Comparison(f"{what}, {way}", "s", wall("ours"), wall(best), name, "not slower", limit),
        Comparison(f"{what}, {way}, the client's cores", "s", cores[0], cores[1], name),
    )


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Transfer a folder ``repetitions`` times in each direction; a small one if only once."""
    size = _FULL if repetitions > 1 else _QUICK
    what = f"{size.mib / 1000:.2g} GB and {size.small} small files"
    with peers.temporary_home() as home, _server(home) as url:
        source = _fill(home / "source", size)
        store(f"s3://{_BUCKET}/nothing").exists()  # both sides have imported everything
        _client(url).list_buckets()
        found = _transfers(home, source, url, repetitions, calm)
        lines = [line for way in ("up", "down") for line in _compared(found, way, what)]
        uri = f"s3://{_BUCKET}/killed"
        again_up = _killed("publish", uri, source)
        again_down = _killed("fetch", uri, home / "again")
        _check_same(source, home / "again")
    return [
        *lines,
        Comparison(f"{what}, up, after a kill in the middle", "s", [again_up]),
        Comparison(f"{what}, down, after a kill in the middle", "s", [again_down]),
    ]
