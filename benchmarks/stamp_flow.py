"""The peer's flow: a script run as a subprocess, the plainest way to do what ``train`` does."""

from __future__ import annotations

import subprocess
import sys

from prefect import flow


@flow
def stamp(script: str, out: str) -> None:
    """Run ``script``, which writes the time of its first line to ``out``."""
    subprocess.run([sys.executable, script, "--out", out], check=True)
