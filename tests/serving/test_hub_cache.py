"""Which downloads from the hub are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from serving import hub_cache

DAY = 86400


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Downloads that were used a day ago, two days ago and so on."""
    for days, name in enumerate(["models--org--a", "models--b", "datasets--org--c"], 1):
        repository = tmp_path / "hub" / name
        (repository / "blobs").mkdir(parents=True)
        (repository / "blobs" / "0").write_text("weights")
        (tmp_path / "hub" / ".locks" / name).mkdir(parents=True)
        then = time.time() - days * DAY
        os.utime(repository, (then, then))
    return tmp_path


def left(hub: Path) -> set[str]:
    """The repositories; their locks are as many."""
    names = {one.name for one in (hub / "hub").iterdir()} - {".locks"}
    assert {one.name for one in (hub / "hub" / ".locks").iterdir()} == names
    return names


def test_few_and_young_ones_are_kept(hub: Path) -> None:
    assert hub_cache.prune(hub) == []
    assert left(hub) == {"models--org--a", "models--b", "datasets--org--c"}


@pytest.mark.parametrize("limit", [{"days": 2.5}, {"most": 2}])
def test_old_ones_and_those_beyond_the_limit_go(hub: Path, limit: dict[str, int]) -> None:
    assert hub_cache.prune(hub, **limit) == ["datasets--org--c"]
    assert left(hub) == {"models--org--a", "models--b"}


def test_none_goes_while_a_run_uses_any_and_what_was_used_is_new(hub: Path) -> None:
    with hub_cache.using(hub, "b"), hub_cache.using(hub, "org/never-downloaded"):
        assert hub_cache.prune(hub, most=0) == []

    assert hub_cache.prune(hub, most=1) == ["datasets--org--c", "models--org--a"]
    assert left(hub) == {"models--b"}


def test_what_is_not_there_needs_nothing(tmp_path: Path) -> None:
    assert hub_cache.prune(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
    with hub_cache.using(tmp_path / "new" / "hub"):
        assert (tmp_path / "new" / "hub").is_dir()
    assert hub_cache.prune(tmp_path / "new" / "hub") == []
