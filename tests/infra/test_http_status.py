"""Statuses of HTTP answers."""

from __future__ import annotations

import pytest

from infra.http_status import is_retryable


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_passes_is_retryable(status: int) -> None:
    assert is_retryable(status)


@pytest.mark.parametrize("status", [200, 304, 400, 401, 403, 404, 409, 422])
def test_a_refusal_is_not(status: int) -> None:
    assert not is_retryable(status)
