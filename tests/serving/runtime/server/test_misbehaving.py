"""Models that misbehave, in a server of their own: it stays live, tells the truth, and ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.processes import eventually
from tests.serving.runtime.server.test_serving import Server, folder, start

__all__ = ["folder", "start"]  # fixtures

Start = Callable[..., Server]

MODEL = """
import os, resource, signal, sys, threading, time
import numpy as np
kept = []
def leak(size):
    kept.append(bytearray(size))
def load(model_dir, parameters):
    print("loaded")
def predict(inputs, model):
    case = str(inputs["case"][0])
    if case == "hang":
        time.sleep(1000)
    if case == "exit":
        sys.exit(0)
    if case == "die":
        os._exit(7)
    if case == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if case == "raise":
        raise RuntimeError("no")
    if case == "print":
        print("x" * 2**20, flush=True)
    if case == "thread":
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    if case == "signals":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if case == "limit":
        pages = int(open("/proc/self/statm").read().split()[0])
        most = pages * resource.getpagesize() + 2**28
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if case == "leak":
        leak(7 * 2**25)
    if case == "fill":
        for size in (2**24, 2**20, 2**14):
            try:
                while True:
                    leak(size)
            except MemoryError:
                pass
    if case == "rows":
        return {"y": np.ones(3)}
    if case == "odd":
        return {"y": [object()]}
    return {"y": [float("nan"), float("inf")] if case == "nan" else [1.0]}
"""


@pytest.fixture
def server(folder: Path, start: Start) -> Server:
    (folder / "predictor.py").write_text(MODEL)
    made = start("--drain", "1", "--timeout", "2")
    made.wait_ready()
    return made


def infer(server: Server, case: str) -> httpx.Response:
    tensor = {"name": "case", "shape": [1], "datatype": "BYTES", "data": [case]}
    url = f"{server.url}/v2/models/m/infer"
    return httpx.post(url, json={"inputs": [tensor]}, timeout=30)


def test_the_server_outlives_what_a_model_does(server: Server) -> None:
    told = {
        "fine": [1.0], "exit": "SystemExit: 0", "raise": "RuntimeError: no",
        "print": [1.0], "thread": [1.0], "signals": "signal only works in main thread",
        "nan": [None, None], "rows": [1.0, 1.0, 1.0], "odd": "a object has no JSON",
    }  # fmt: skip
    for case, expected in told.items():
        answer = infer(server, case)
        if isinstance(expected, str):
            assert answer.status_code == 500
            assert expected in answer.json()["error"]
        else:
            assert answer.json()["outputs"][0]["data"] == expected
    tensor = {"instances": [{"case": "rows"}]}
    odd = httpx.post(f"{server.url}/v1/models/m:predict", json=tensor)

    assert odd.json() == {"error": "The model did not answer each instance."}
    assert server.get("/v2/health/ready").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0


def test_a_model_that_hangs_is_not_ready_and_does_not_hold_up_the_end(server: Server) -> None:
    assert infer(server, "hang").status_code == 504
    eventually(lambda: server.get("/v2/health/ready").status_code == 503, "it is not ready")
    assert "longer than the 2 s" in server.get("/v2/models/m/ready").json()["error"]
    assert infer(server, "fine").status_code == 503
    assert server.get("/v2/health/live").status_code == 200

    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0


@pytest.mark.parametrize(("case", "code"), [("die", 7), ("crash", -signal.SIGSEGV)])
def test_a_model_that_ends_the_process_is_an_error_for_who_asked(
    server: Server, case: str, code: int
) -> None:
    with pytest.raises(httpx.TransportError):
        infer(server, case)
    assert server.process.wait(20) == code


def test_a_model_that_finds_no_memory_fails_and_the_server_goes_on(server: Server) -> None:
    cases = ["limit", "leak", "leak", "leak", "fine"]
    answers = [infer(server, case) for case in cases]

    assert [one.status_code for one in answers] == [200, 200, 500, 500, 200]
    assert answers[2].json() == {"error": "The model failed: MemoryError"}
    assert server.get("/v2/health/ready").status_code == 200


def test_a_server_whose_model_leaves_no_memory_answers_or_ends(server: Server) -> None:
    assert infer(server, "limit").status_code == 200
    with contextlib.suppress(httpx.TransportError):
        infer(server, "fill")

    def answers_or_has_ended() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return server.get("/v2/health/live").status_code == 200
        return server.process.poll() is not None

    eventually(answers_or_has_ended, "it answers or has ended")
    assert server.process.returncode != 0


def test_a_server_ends_while_its_model_loads(folder: Path, start: Start) -> None:
    (folder / "wait").touch()
    server = start()
    assert server.get("/v2/health/ready").status_code == 503
    server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(20) == 0


def test_a_model_that_exits_while_it_loads_has_not_loaded(folder: Path, start: Start) -> None:
    (folder / "predictor.py").write_text("import sys\nsys.exit(0)\n")
    server = start()

    assert server.process.wait(20) == 1
    assert "The model m failed to load: predictor.py:2, in <module>: SystemExit: 0" in server.log


def test_it_says_that_it_is_not_ready_until_what_it_has_begun_is_answered(start: Start) -> None:
    server = start()
    server.wait_ready()
    slow = http.client.HTTPConnection(httpx.URL(server.url).netloc.decode(), timeout=30)
    tensor = {"name": "seconds", "shape": [1], "datatype": "FP64", "data": [2.0]}
    slow.request("POST", "/v2/models/m/infer", json.dumps({"inputs": [tensor]}))
    assert server.get("/v2/health/ready").status_code == 200  # which arrives after it
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: server.get("/v2/health/ready").status_code == 503, "it is not ready")

    assert server.get("/v2/health/live").status_code == 200
    assert slow.getresponse().status == 200
    assert server.process.wait(20) == 0


def test_it_is_live_while_it_predicts_after_many_quick_ones(start: Start) -> None:
    server = start()
    server.wait_ready()
    assert {server.infer(0).status_code for _ in range(20)} == {200}
    found: list[httpx.Response] = []
    slow = threading.Thread(target=lambda: found.append(server.infer(2)))
    slow.start()
    answers = 0
    while slow.is_alive():
        answers += server.get("/v2/health/live").status_code == 200
    slow.join()

    assert found[0].status_code == 200
    assert answers > 10


def test_a_full_queue_refuses_at_once_and_serves_what_it_took(start: Start) -> None:
    server = start("--queue", "2")
    server.wait_ready()
    found: list[httpx.Response] = []
    clients = [threading.Thread(target=lambda: found.append(server.infer(1.5))) for _ in range(12)]
    for one in clients:
        one.start()
    eventually(lambda: len(found) >= 6, "some are refused")
    early = [one.status_code for one in found]
    for one in clients:
        one.join()

    assert set(early) == {429}
    served = [one for one in found if one.status_code == 200]
    refused = [one for one in found if one.status_code == 429]
    assert len(served) + len(refused) == 12
    assert len(served) >= 2
    assert {one.headers["retry-after"] for one in refused} == {"1"}
    assert all(one.json()["error"] for one in refused)
