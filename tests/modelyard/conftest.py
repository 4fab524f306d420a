"""A catalogue for tests of processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.home import Home
from registry import catalogue
from tests.registry.conftest import new_database


@pytest.fixture
def database(database_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", new_database(database_home))
    catalogue.migrate()
    yield
    catalogue.engine().dispose()
