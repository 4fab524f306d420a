"""Times for people."""

import time
from datetime import UTC, datetime

import pytest

from infra.local_time import local


@pytest.mark.parametrize(
    ("zone", "shown"), [("Asia/Seoul", "10:00:00 KST"), ("UTC", "01:00:00 UTC")]
)
def test_a_time_is_local_and_names_its_zone(zone, shown, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        found = local(datetime(2026, 1, 2, 1, tzinfo=UTC))
    time.tzset()

    assert found == f"2026-01-02 {shown}"
