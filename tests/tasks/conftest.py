from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.home import Home
from infra.settings import Settings
from tasks.run_directory import RunDirectory
from tasks.training.training_request import Training


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., Training]:
    """A training that is right, but for the given changes."""
    algorithm = tmp_path / "algorithm"
    (algorithm / "deep").mkdir(parents=True)
    for name in ("train.py", "deep/train.py", "train.sh", "train.R", "notes"):
        (algorithm / name).write_text("")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train.py").symlink_to(tmp_path / "data.csv")
    (tmp_path / "data.csv").write_text("1")
    (tmp_path / "data").mkdir()

    def made(**changes: Any) -> Training:
        text = json.dumps(changes).replace("TMP", str(tmp_path))
        asked = {
            "algorithm": {"uri": str(algorithm), "entry_point": "train.py"},
            **json.loads(text),
        }
        return Training(**asked)

    return made


@pytest.fixture
def settings(home: Home) -> Settings:
    return Settings(home=home.root, region="KR1", appkey="key", min_free_mib=1)


@pytest.fixture
def run_dir(home: Home) -> RunDirectory:
    return RunDirectory(home.runs / "run")
