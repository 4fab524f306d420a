"""Workers on a shared port: started, started again, replaced and ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.errors import ConflictError
from serving import worker_pool
from serving.source_watch import SourceWatch
from serving.worker_pool import WorkerListeners, WorkerPool, WorkerSpec
from tests.processes import eventually

# Answers with its process id and the text of answer.py, as it was when it was loaded; each leaves
# a file, by when it accepts connections.
_WORKER = """
import os, pathlib, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
kind = "when-ready" if "--accept-when-ready" in sys.argv else "at-once"
pathlib.Path(f"{kind}-{os.getpid()}").touch()
text = pathlib.Path("answer.py").read_text()
if "fail" in text:
    sys.exit(3)
if "leave" in text:
    pathlib.Path(options["--ready-file"]).touch()
    sys.exit(4)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{os.getpid()} {text}".encode())
    def log_message(self, *_):
        pass
server = HTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(options["--fd"]))
server.socket.listen()
pathlib.Path(options["--ready-file"]).touch()
server.serve_forever()
"""


class Running:
    """A pool in a thread."""

    def __init__(self, folder: Path, count: int, watch: SourceWatch | None) -> None:
        (folder / "worker.py").write_text(_WORKER)
        self.listeners = worker_pool.listen("127.0.0.1", 0, count)
        self.port = self.listeners[0].getsockname()[1]
        self.reports: list[str] = []
        self.ready = threading.Event()
        self.stop = threading.Event()
        self.code: int | None = None
        spec = WorkerSpec([sys.executable, "-S", "worker.py"], dict(os.environ), folder)
        self._pool = WorkerPool(
            spec,
            list(map(WorkerListeners, self.listeners)),
            folder,
            self.reports.append,
            self.ready.set,
            watch,
        )
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.code = self._pool.run(self.stop)

    def ask(self) -> tuple[int, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=30) as answer:
            pid, _, text = answer.read().decode().partition(" ")
        return int(pid), text

    def end(self) -> None:
        self.stop.set()
        self.thread.join(30)
        for one in self.listeners:
            one.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def make(text: str = "old", count: int = 1, *, watched: bool = False) -> Running:
        (tmp_path / "answer.py").write_text(text)
        watch = SourceWatch([tmp_path], poll_seconds=0) if watched else None
        started.append(Running(tmp_path, count, watch))
        return started[-1]

    yield make
    for one in started:
        one.end()


def test_several_workers_answer_on_one_port(start: Callable[..., Running]) -> None:
    running = start(count=2)
    assert running.ready.wait(30)
    pids: set[int] = set()
    eventually(lambda: pids.add(running.ask()[0]) or len(pids) == 2, "both answer")
    running.end()

    assert running.code == 0
    assert running.reports == []


def test_a_worker_that_dies_is_started_again(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    running = start()
    pid, _ = running.ask()
    os.kill(pid, signal.SIGKILL)
    again, _ = running.ask()  # waits in the socket's queue

    assert again != pid
    assert (tmp_path / f"at-once-{pid}").exists()
    assert (tmp_path / f"when-ready-{again}").exists()
    assert "A worker ended with signal SIGKILL (perhaps for want of memory)." in running.reports


def test_what_does_not_load_ends_the_server(start: Callable[..., Running]) -> None:
    running = start("fail")
    running.thread.join(30)

    assert running.code == 1
    assert not running.ready.is_set()


def test_workers_that_end_again_and_again_end_the_server(start: Callable[..., Running]) -> None:
    running = start("leave")
    running.thread.join(60)

    assert running.code == 1
    assert running.reports.count("A worker ended with exit status 4.") == 6
    assert "Workers ended" in running.reports[-1]


def test_a_change_replaces_the_workers(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start("old", 2, watched=True)
    assert running.ready.wait(30)
    (tmp_path / "answer.py").write_text("newer")
    eventually(lambda: "The server has the changed files." in running.reports, "it is replaced")
    eventually(lambda: running.ask()[1] == "newer", "the new one answers")
    assert [len(list(tmp_path.glob(f"{kind}-*"))) for kind in ("at-once", "when-ready")] == [2, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [("def f(:", "SyntaxError"), ("fail", "The changed files do not load")],
)
def test_after_a_change_that_is_wrong_the_old_ones_go_on(
    start: Callable[..., Running], tmp_path: Path, text: str, said: str
) -> None:
    running = start("old", watched=True)
    assert running.ready.wait(30)
    before = running.ask()
    (tmp_path / "answer.py").write_text(text)
    eventually(lambda: any(said in one for one in running.reports), "it is reported")

    assert running.ask() == before
    assert running.code is None


@pytest.mark.parametrize("count", [1, 2])
def test_a_port_in_use_is_refused(count: int) -> None:
    first = worker_pool.listen("127.0.0.1", 0, 2)
    port = first[0].getsockname()[1]
    with pytest.raises(ConflictError) as refused:
        worker_pool.listen("127.0.0.1", port, count)
    for one in first:
        one.close()

    assert refused.value.code == "PortInUse"
    assert f"Port {port} of 127.0.0.1 cannot be used" in refused.value.message


def test_a_worker_is_given_the_sockets_that_it_has() -> None:
    http, grpc = worker_pool.listen("127.0.0.1", 0, 2)
    with http, grpc:
        assert WorkerListeners(http).descriptors == {"--fd": http.fileno()}
        assert WorkerListeners(http, grpc).descriptors == {
            "--fd": http.fileno(), "--grpc-fd": grpc.fileno()
        }  # fmt: skip
        with pytest.raises(ConflictError) as refused:
            worker_pool.listen("127.0.0.1", grpc.getsockname()[1], 1, "--grpc-port")

    assert "--grpc-port" in refused.value.hint


def test_an_address_that_is_not_this_machine_s_is_refused() -> None:
    with pytest.raises(ConflictError):
        worker_pool.listen("192.0.2.1", 0, 1)
