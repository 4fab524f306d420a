from __future__ import annotations

import pytest

from tests.infra.workloads.conftest import environments, settings

__all__ = ["environments", "settings"]

pytest.register_assert_rewrite("tests.infra.workloads.backend_contract")
