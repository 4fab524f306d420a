from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from infra.home import Home
from registry import catalogue
from registry.schedules import scheduled_runs
from schedules import instants
from tests.registry.conftest import new_database
from tests.schedules.world import World

BEGINNING = 1_800_000_000.0


@pytest.fixture
def world(database_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """One whose catalogue is empty; its clock is also that of whoever asks for something."""
    monkeypatch.setenv("MODELYARD_DATABASE_URL", new_database(database_home))
    catalogue.migrate()
    made = World(BEGINNING, random.Random(1))
    monkeypatch.setattr(instants, "present", lambda: made.now)
    monkeypatch.setattr(scheduled_runs, "ended", made.ended)
    yield made
    catalogue.engine().dispose()
