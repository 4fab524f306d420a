from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "tests.infra.workloads.environment_contract", "tests.infra.workloads.packages"
)
