"""TensorBoard's process, and its door."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from infra.door import credential
from infra.home import Home
from infra.stack import parts
from tests.processes import eventually


def test_it_answers_its_owner_alone(home: Home, tmp_path: Path) -> None:
    credential.ensure(home)
    with parts.bind(0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        command = [sys.executable, "-P", "-m", "modelyard.tensorboard_server"]
        server = subprocess.Popen(
            [*command, str(listener.fileno()), str(tmp_path)],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            pass_fds=(listener.fileno(),),
        )
    try:
        eventually(lambda: server.poll() is not None or parts.answers(home, url), "it answers")
        assert server.poll() is None
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=30)
        assert refused.value.code == 401
    finally:
        server.terminate()
        server.wait(30)
