import pytest

pytest.register_assert_rewrite("tests.pipelines.launchers.contract")
