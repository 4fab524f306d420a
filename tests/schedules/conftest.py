from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from infra.home import Home
from registry import catalogue
from tests.registry.conftest import new_database
from tests.schedules.world import World

BEGINNING = 1_800_000_000.0


@pytest.fixture
def world(database_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """One whose catalogue is empty."""
    monkeypatch.setenv("MODELYARD_DATABASE_URL", new_database(database_home))
    catalogue.migrate()
    yield World(BEGINNING, random.Random(1))
    catalogue.engine().dispose()
