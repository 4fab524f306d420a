from __future__ import annotations

import pytest

from infra.settings import Settings
from infra.workloads.environments import EnvironmentCache

pytest.register_assert_rewrite(
    "tests.infra.workloads.backend_contract",
    "tests.infra.workloads.environment_contract",
)


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> EnvironmentCache:
    """A cache that all tests here share: no environment is written to once it is made."""
    return EnvironmentCache(tmp_path_factory.mktemp("environments"))


@pytest.fixture
def settings() -> Settings:
    return Settings(stop_grace_seconds=0.5, gpus="none")
