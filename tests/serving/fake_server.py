"""Programs that stand for Triton and vLLM: they take the same command lines, and serve models.

Triton's has its options, its rules of a model repository and its protocol, and ends where it
cannot load a model. Asked for 666 it ends, too, as a broken model's does. ``tritonclient`` 2.73
was run against it by hand, and its command line against Triton 2.51.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.tasks.batch_inference.model_server import (
    ModelServer,
    language_server,
    line_server,
)

LOAD_SECONDS = "LOAD_SECONDS"
BROKEN = "broken"
# The outermost fields of an ONNX model, which registering looks at.
MODEL = b"\x08\x08\x3a\x00\x42\x00"
PROGRAMS = ("tritonserver", "vllm")
_NAME = re.compile(r'^name: *"([^"]*)"', re.MULTILINE)


def install(folder: Path) -> Path:
    """Put the programs into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        program.chmod(0o755)
    return folder


def triton_model(folder: Path, name: str = "", *, versions: tuple[str, ...] = ("1",)) -> Path:
    """Write a model's own folder for Triton, of the framework ``onnx-triton``."""
    folder.mkdir(parents=True, exist_ok=True)
    named = f'name: "{name}"\n' if name else ""
    (folder / "config.pbtxt").write_text(f'{named}platform: "onnxruntime_onnx"\n')
    for version in versions:
        (folder / version).mkdir(exist_ok=True)
        (folder / version / "model.onnx").write_bytes(MODEL)
    return folder


def _fail(message: str) -> NoReturn:
    print(message, flush=True)
    sys.exit(1)


def _triton(words: list[str]) -> tuple[ModelServer, int]:
    parser = argparse.ArgumentParser("tritonserver", allow_abbrev=False)
    for name in ("model-repository", "http-address"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--http-port", type=int, required=True)
    for name in ("allow-grpc", "allow-metrics", "exit-on-error", "log-verbose"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--disable-auto-complete-config", action="store_true")
    given = parser.parse_args(words)
    models = [one for one in Path(given.model_repository).iterdir() if one.is_dir()]
    if len(models) != 1:
        _fail(f"{len(models)} models in {given.model_repository}")
    (model,) = models
    stated = _NAME.search((model / "config.pbtxt").read_text())
    if stated and stated[1] != model.name:
        _fail(f"unexpected directory name '{model.name}' for model '{stated[1]}'")
    if not (model / "1" / "model.onnx").exists():
        _fail(f"failed to load '{model.name}', at least one version must be available")
    if (model / "1" / BROKEN).exists():
        _fail(f"failed to load '{model.name}' version 1: Internal: its weights are broken")
    made = line_server(0, "binary_tensor_data", "model_repository", model=model.name)
    infer = made.answers[f"POST /v2/models/{model.name}/infer"]

    def fragile(body: Any) -> Any:
        if 666 in body["inputs"][0]["data"]:
            print("Signal (11) received.", flush=True)
            os._exit(139)
        return infer(body)

    made.answers[f"POST /v2/models/{model.name}/infer"] = fragile
    return made, given.http_port


def _vllm(words: list[str]) -> tuple[ModelServer, int]:
    parser = argparse.ArgumentParser("vllm", allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    for name in ("served-model-name", "host", "revision", "dtype"):
        parser.add_argument(f"--{name}")
    for name in ("port", "tensor-parallel-size", "max-model-len"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--trust-remote-code", action=argparse.BooleanOptionalAction)
    given = parser.parse_args([_dashed(word) for word in words])
    if given.model.startswith("/") and not Path(given.model, "config.json").exists():
        _fail(f"Can't load the configuration of '{given.model}'")
    print(f"The hub is asked with {os.environ.get('HF_TOKEN')}", flush=True)
    return language_server(given.served_model_name), given.port


def _dashed(word: str) -> str:
    """An option with dashes, in whose place vLLM takes underscores as well."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def main(program: str, words: list[str]) -> None:
    """Load a model, and serve it until it is killed; on loopback alone, whatever is asked for."""
    print(f"{program} {' '.join(words)}", flush=True)
    print(f"GPUs: {os.environ.get('NVIDIA_VISIBLE_DEVICES')}", flush=True)
    made, port = {"tritonserver": _triton, "vllm": _vllm}[program](words)
    time.sleep(float(os.environ.get(LOAD_SECONDS, "0")))
    with made.running(port):
        print("Started HTTPService", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
