"""Tests that share what takes long to make run in one worker."""

import os

import pytest

from tests.conftest import group_of


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_the_scheduler_of_tests_sees_the_group_of_each(request):
    assert request.node.nodeid.endswith(f"@{group_of(request.node)}")
