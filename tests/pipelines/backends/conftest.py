from __future__ import annotations

import pytest

from tests.infra.workloads.conftest import environments, settings
from tests.infra.workloads.kubernetes.small_cluster import _running, running

__all__ = ["_running", "environments", "running", "settings"]

pytest.register_assert_rewrite("tests.infra.workloads.backend_contract")
