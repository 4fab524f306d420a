"""Workers of the real server, killed under load: each request is answered rightly, or fails."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import httpx

from serving import worker_pool
from serving.worker_pool import WorkerListeners, WorkerPool, WorkerSpec
from tests.processes import eventually

KILLS = 4  # a fifth within a minute ends the pool
CLIENTS = 12
KILLED = "A worker ended with signal SIGKILL (perhaps for want of memory)."
MODEL = """
import os, time
def load(model_dir, parameters): pass
def predict(inputs, model):
    time.sleep(0.002)
    return {"y": 2 * inputs["x"], "pid": [os.getpid()] * len(inputs["x"])}
"""


class Load:
    """Clients that ask without a pause, and know what has to come back."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._counts: list[Counter[str]] = [Counter() for _ in range(CLIENTS)]
        self.pids: set[int] = set()
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(seed), counts))
            for seed, counts in enumerate(self._counts)
        ]
        for one in self._threads:
            one.start()

    @property
    def counts(self) -> Counter[str]:
        """How many requests ended in which way, of all clients."""
        return sum((one.copy() for one in self._counts), Counter())

    def end(self) -> None:
        self._stop.set()
        for one in self._threads:
            one.join(60)

    def _ask(self, chance: random.Random, counts: Counter[str]) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                counts["sent"] += 1
                try:
                    counts[self._ask_once(client, chance)] += 1
                except httpx.TransportError:
                    counts["lost"] += 1

    def _ask_once(self, client: httpx.Client, chance: random.Random) -> str:
        values = [chance.randrange(2**40) for _ in range(chance.randint(1, 5))]
        identifier = str(chance.random())
        tensor = {"name": "x", "datatype": "INT64", "shape": [len(values)], "data": values}
        response = client.post(
            "/v2/models/m/infer", json={"id": identifier, "inputs": [tensor]}
        )  # fmt: skip
        if response.status_code != 200:
            return f"status {response.status_code}"
        answer = response.json()
        y, pid = (one["data"] for one in answer["outputs"])
        self.pids.add(pid[0])
        is_right = answer["id"] == identifier and y == [2 * one for one in values]
        return "right" if is_right else "wrong"


def test_no_kill_loses_more_than_what_its_worker_had(tmp_path: Path) -> None:
    (tmp_path / "predictor.py").write_text(MODEL)
    listeners = [WorkerListeners(one) for one in worker_pool.listen("127.0.0.1", 0, 3)]
    command = [sys.executable, "-m", "modelyard_runtime.server", "--name", "m"]
    spec = WorkerSpec([*command, "--model-dir", str(tmp_path)], dict(os.environ), tmp_path)
    ready, stop = threading.Event(), threading.Event()
    reports: list[str] = []
    pool = WorkerPool(spec, listeners, tmp_path, reports.append, ready.set)
    running = threading.Thread(target=pool.run, args=(stop,))
    running.start()
    load = None
    try:
        assert ready.wait(60)
        load = Load(f"http://127.0.0.1:{listeners[0].http.getsockname()[1]}")
        chance = random.Random(7)
        killed: set[int] = set()
        for number in range(KILLS):
            answering = eventually(lambda: sorted(load.pids.copy() - killed), "a worker answers")
            killed.add(worker := chance.choice(answering))
            os.kill(worker, signal.SIGKILL)
            before = load.counts["right"]
            eventually(lambda: load.counts["right"] > before + 200, "others answer")  # noqa: B023
            eventually(lambda: len(reports) > number, "its end is reported")  # noqa: B023
    finally:
        if load:
            load.end()
        stop.set()
        running.join(60)
        for one in listeners:
            one.http.close()

    counts = load.counts
    assert counts.keys() <= {"sent", "right", "lost"}
    assert counts["sent"] == counts["right"] + counts["lost"]
    assert 0 < counts["lost"] <= KILLS * CLIENTS
    assert reports == [KILLED] * KILLS
