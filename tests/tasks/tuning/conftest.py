"""A tuning that is right, for tests that change something in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks import parameters
from tasks.tuning.tuning_request import Tuning

X = {"name": "x", "type": "double", "min": 0, "max": 1}
LOSS = {"metric": "loss", "direction": "minimize"}

Given = Callable[..., Tuning]


@pytest.fixture
def tuning(tmp_path: Path) -> Given:
    """A tuning that is right, but for the given changes."""
    algorithm = tmp_path / "algorithm"
    algorithm.mkdir()
    (algorithm / "train.py").write_text("")

    def made(**changes: Any) -> Tuning:
        text = json.dumps(changes).replace("TMP", str(tmp_path))
        asked = {
            "algorithm": {"uri": str(algorithm), "entry_point": "train.py"},
            "parameters": [X],
            "metrics": [{"name": "loss"}],
            "objective": LOSS,
            "max_trials": 4,
            **json.loads(text),
        }
        return parameters.read(Tuning, asked)

    return made
