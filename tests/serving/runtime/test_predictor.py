"""The predictor as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modelyard_runtime
import numpy as np
import pytest
from modelyard_runtime import frames
from modelyard_runtime.frames import Frame

CODE = """
import os, sys
print("loading")
import modelyard_runtime
def load(model_dir, parameters):
    if "fail" in parameters:
        raise RuntimeError(parameters["fail"])
    return float(parameters["scale"])
def predict(inputs, model):
    print("predicting", flush=True)
    os.write(1, b"from C")
    if (inputs["x"] < 0).any():
        raise ValueError("negative")
    return {"prediction": (model * inputs["x"])[:9]}
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "predictor.py").write_text(CODE)
    runtime = str(Path(modelyard_runtime.__file__).parent)
    return [sys.executable, runtime, "--model-dir", str(tmp_path)]


@pytest.fixture
def process(command: list[str]) -> Iterator[Any]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        yield started
        started.kill()


def _begun(process: Any, **parameters: str) -> Frame:
    frames.write(process.stdin, Frame({"parameters": parameters, "arguments": ["--scale", "2"]}))
    found = frames.read(process.stdout)
    assert found is not None
    return found


def _asked(process: Any, number: int, values: list[float]) -> Frame:
    frames.write(process.stdin, Frame({"id": number}, {"x": np.array(values)}))
    found = frames.read(process.stdout)
    assert found is not None
    return found


def test_it_answers_until_its_input_ends(process: Any) -> None:
    assert _begun(process, scale="2").fields == {"ready": True}

    answers = [_asked(process, at, [1.0, at]) for at in range(3)]
    refused = _asked(process, 3, [-1.0])
    short = _asked(process, 4, [0.0] * 10)
    after = _asked(process, 5, [4.0])
    process.stdin.close()

    assert [one.columns["prediction"].tolist() for one in answers] == [[2, 0], [2, 2], [2, 4]]
    assert refused.fields["id"] == 3
    assert refused.fields["error"]["message"] == "ValueError: negative"
    assert "predictor.py" in refused.fields["error"]["traceback"]
    assert short.fields["error"] == {
        "message": "The model was given 10 rows and returned 9 values of prediction.",
        "traceback": "",
    }
    assert after.columns["prediction"].tolist() == [8.0]
    assert process.wait(60) == 0
    printed = process.stderr.read().decode()
    assert printed.count("predicting") == 6
    assert "loading" in printed


def test_a_model_that_does_not_load_is_told(process: Any) -> None:
    found = _begun(process, fail="a=b")

    assert found.fields["error"]["message"] == "RuntimeError: a=b"
    assert process.wait(60) == 1


def test_it_ends_where_it_is_asked_nothing(process: Any) -> None:
    process.stdin.close()

    assert process.wait(60) == 0
    assert process.stdout.read() == b""


def test_arguments_are_the_models(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "predictor.py").write_text(
        "import sys\n"
        "ARGUMENTS = sys.argv[1:]\n"
        "def load(d, p):\n"
        "    raise RuntimeError(ARGUMENTS)\n"
        "def predict(inputs, model): ...\n"
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        found = _begun(process)

    assert found.fields["error"]["message"] == "RuntimeError: ['--scale', '2']"


def test_started_by_its_path_it_brings_nothing_of_ours(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "predictor.py").write_text(
        "import sys\n"
        "def load(d, p):\n"
        "    return [name for name in sys.path if 'runtime' in name]\n"
        "def predict(inputs, model):\n"
        "    return {'paths': [len(model)] * len(inputs['x'])}\n"
    )
    packages = str(Path(np.__file__).parents[1])
    with subprocess.Popen(
        # Without site the editable install of ours is not on the path.
        [command[0], "-S", *command[1:]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": packages},
    ) as process:  # fmt: skip
        assert _begun(process).fields == {"ready": True}
        found = _asked(process, 1, [1.0])
        process.stdin.close()  # type: ignore[union-attr]

    assert found.columns["prediction"].tolist() == [0]
