"""The TensorBoards that are running, as they announce themselves."""

from __future__ import annotations

import subprocess
import sys

from infra.home import Home
from modelyard import tensorboards
from modelyard.tensorboards import TensorBoard

_KILLED = """
import os, sys
from pathlib import Path
from infra.home import Home
from modelyard import tensorboards
with tensorboards.announced(Home(Path(sys.argv[1])), tensorboards.TensorBoard("dead", "http://x")):
    os._exit(9)
"""


def test_one_is_listed_while_it_runs(home: Home) -> None:
    digits = TensorBoard("digits", "http://127.0.0.1:6006/")

    assert tensorboards.running(home) == []
    with tensorboards.announced(home, digits):
        assert tensorboards.running(home) == [digits]
        assert tensorboards.running(home) == [digits]  # a look changes nothing
    assert tensorboards.running(home) == []
    assert not any(home.tensorboards.iterdir())


def test_one_that_was_killed_is_not_listed(home: Home) -> None:
    home.tensorboards.mkdir()
    (home.tensorboards / "1.json").write_text("no json")
    killed = subprocess.run([sys.executable, "-P", "-c", _KILLED, str(home.root)], check=False)

    assert killed.returncode == 9
    assert len(list(home.tensorboards.iterdir())) == 2
    assert tensorboards.running(home) == []
    assert not any(home.tensorboards.iterdir())
