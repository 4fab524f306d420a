"""The options and variables of ``azmlinfsrv``, the command of Azure ML's inference server."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TOKEN = "MODELYARD_SERVE_TOKEN"  # noqa: S105 (the variable's name)
_MOST_WORKERS = 64


@dataclass(frozen=True)
class AzmlinfsrvOptions:
    """What the command is given.

    Attributes:
        entry_script: The script.
        model_dir: The folder of the model; None if there is none.
        host: The address to listen on: all, as Azure ML's does, where a token is set, else
            loopback.
        port: The port.
        workers: Processes that answer requests.
        origins: Origins whose pages may ask; None where the variable says it.
    """

    entry_script: Path
    model_dir: Path | None
    host: str
    port: int
    workers: int
    origins: str | None


def parse(arguments: Sequence[str] | None = None) -> AzmlinfsrvOptions:
    """The options of a command line; those that it leaves out are variables'.

    Raises:
        SystemExit: If they are malformed.
    """
    environment = os.environ
    parser = argparse.ArgumentParser("azmlinfsrv", description="Serve a scoring script.")
    add = parser.add_argument
    script = environment.get("AZUREML_ENTRY_SCRIPT")
    add("--entry_script", type=Path, default=script, required=not script,
        help="Path of the script.")  # fmt: skip
    add("--model_dir", type=Path, default=environment.get("AZUREML_MODEL_DIR"),
        help="Folder of the model, in AZUREML_MODEL_DIR for the script.")  # fmt: skip
    add("--port", type=int, default=5001, help="Port; 5001 if left out.")
    add("--worker_count", type=int, default=environment.get("WORKER_COUNT", "1"),
        help="Processes that answer requests; 1 if left out.")  # fmt: skip
    add("--access_control_allow_origins", default=None,
        help="Origins whose pages may ask, separated by commas.")  # fmt: skip
    given = parser.parse_args(arguments)
    if not 1 <= given.worker_count <= _MOST_WORKERS:
        parser.error(f"--worker_count is {given.worker_count}: give 1 to {_MOST_WORKERS}.")
    host = "0.0.0.0" if environment.get(_TOKEN, "").strip() else "127.0.0.1"  # noqa: S104
    return AzmlinfsrvOptions(
        given.entry_script, given.model_dir, host, given.port, given.worker_count,
        given.access_control_allow_origins,
    )  # fmt: skip
