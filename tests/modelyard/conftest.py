"""A catalogue for tests of processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest

from infra.home import Home
from infra.stack import client as stack
from registry import catalogue
from tests.registry.conftest import new_database


@pytest.fixture(autouse=True)
def no_temporary_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail what would start a stack: it takes seconds, and tests/e2e has those that want one."""

    def refuse(*_: object) -> NoReturn:
        pytest.fail("a stack would have been started")

    monkeypatch.setattr(stack, "temporary_stack", refuse)


@pytest.fixture
def database(database_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", new_database(database_home))
    catalogue.migrate()
    yield
    catalogue.engine().dispose()
