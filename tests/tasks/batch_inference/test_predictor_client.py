"""The predictor's other side, whatever a model's code does to its process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from modelyard_runtime.frames import objects

from tasks.batch_inference.predictor_client import (
    PredictionError,
    PredictorClient,
    PredictorCommand,
    command_line,
)

TOKEN = "correct-horse-battery"

# What a record's field "do" makes the model do.
CODE = """
import os, signal, subprocess, sys, time
LEAKED = []
class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("again")
def load(model_dir, parameters):
    return model_dir, parameters["token"]
def predict(inputs, loaded):
    folder, token = loaded
    LEAKED.append(1)
    what = str(inputs["do"][0])
    if what == "leave a child that holds the pipes":
        if os.fork() == 0:
            os.setsid()
            with open(folder + "/child", "w") as file:
                file.write(str(os.getpid()))
            time.sleep(60)
        os._exit(7)
    if what == "return twice":
        os.fork()
    if what == "sys.exit":
        sys.exit(4)
    if what == "leak" and len(LEAKED) > 3:
        raise MemoryError
    if what == "say nothing":
        raise Unspeakable
    if what == "say much":
        raise ValueError("e" * 50_000_000)
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "print":
        os.write(1, b"y" * 3_000_000 + b"\\n" + 2000 * b"z\\n")
        print("p" * (2**20 - 9) + token)
    if what == "close":
        sys.stdout.close()
        os.close(1)
        os.chdir("/")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if what == "start a child":
        return {"prediction": [subprocess.Popen(["sleep", "60"]).pid]}
    return {"prediction": inputs["x"]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[PredictorClient]:
    (folder / "predictor.py").write_text(CODE)
    command = PredictorCommand(
        command_line(sys.executable, folder), dict(os.environ), 60.0, {"token": "secret:mine"}
    )
    with PredictorClient(command.with_secrets({"token": TOKEN})) as opened:
        yield opened


def _ask(client: PredictorClient, what: str = "", x: float = 1) -> float:
    columns = {"x": np.array([x]), "do": objects([what])}
    return float(client.infer(columns, 30)["prediction"][0])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("sys.exit", r"The model called sys.exit\(4\)."),
        ("say nothing", "^Unspeakable$"),
        ("say much", "^ValueError: e{3000,4000}[.]{3}$"),
        ("interrupt", "^KeyboardInterrupt$"),
    ],
)
def test_what_the_model_raises_does_not_end_it(
    client: PredictorClient, what: str, message: str
) -> None:
    with pytest.raises(PredictionError, match=message) as raised:
        _ask(client, what)

    assert not raised.value.is_lost
    assert _ask(client, x=5) == 5


def test_one_that_ends_is_lost_at_once_though_a_child_holds_its_pipes(
    client: PredictorClient, folder: Path
) -> None:
    with pytest.raises(PredictionError, match="ended with the exit code 7") as raised:
        _ask(client, "leave a child that holds the pipes")

    assert raised.value.is_lost
    assert _ask(client, x=6) == 6
    os.kill(int((folder / "child").read_text()), signal.SIGKILL)  # a run's leash does that


def test_a_fork_that_comes_back_does_not_answer(client: PredictorClient) -> None:
    assert [_ask(client, "return twice", x=at) for at in range(3)] == [0, 1, 2]


def test_one_that_runs_out_of_memory_is_started_again(
    client: PredictorClient, capfd: pytest.CaptureFixture[str]
) -> None:
    client.end()
    assert [_ask(client, "leak", x=at) for at in range(3)] == [0, 1, 2]

    with pytest.raises(PredictionError, match="The model ran out of memory: Memory") as raised:
        _ask(client, "leak")

    assert raised.value.is_lost
    assert _ask(client, "leak", x=4) == 4
    assert "asked for 1 records, and is started again" in capfd.readouterr().err


def test_what_it_prints_is_cut_and_hides_secrets(
    client: PredictorClient, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _ask(client, "print", x=7) == 7
    client.end()

    lines = capfd.readouterr().err.splitlines()
    assert {len(line) for line in lines} == {1, 2**16}
    assert not [line for line in lines if TOKEN[:5] in line]


def test_one_that_closes_its_output_and_ignores_signals_answers(client: PredictorClient) -> None:
    assert _ask(client, "close", x=8) == 8
    assert _ask(client, x=9) == 9


def test_its_children_end_with_it(client: PredictorClient) -> None:
    child = psutil.Process(int(_ask(client, "start a child")))

    client.close()

    assert psutil.wait_procs([child], timeout=30) == ([child], [])
