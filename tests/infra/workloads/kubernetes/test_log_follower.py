from __future__ import annotations

from typing import Any

from infra.kubernetes.api_errors import ClusterError
from infra.workloads.kubernetes.log_follower import LogFollower
from tests.infra.workloads.kubernetes.asked import Asked

_AWAY = ClusterError("no answer", code="ApiUnreachable", transient=True)


def _told(*logs: Any) -> list[str]:
    api = Asked()
    api.logs = list(logs)
    told: list[str] = []
    lines = LogFollower(api, "pod", "component", told.append)  # type: ignore[arg-type]
    lines.end()
    return told


def test_a_line_is_told_once_however_often_the_connection_breaks() -> None:
    first = ["2026-01-01T00:00:01.1Z a", "2026-01-01T00:00:01.12Z b"]
    whole = [*first, "2026-01-01T00:00:01.12Z b again", "2026-01-01T00:00:02Z c"]

    assert _told(first, _AWAY, whole, whole) == ["a", "b", "b again", "c"]


def test_equal_lines_of_one_moment_are_all_told() -> None:
    line = "2026-01-01T00:00:01.5Z same"

    assert _told([line], [line, line, line]) == ["same"] * 3


def test_what_overwrites_a_line_is_another_line_and_empty_ones_are_left_out() -> None:
    log = ["2026-01-01T00:00:01Z 10%\r20%\r", "2026-01-01T00:00:01Z ", "2026-01-01T00:00:02Z on"]

    assert _told(log) == ["10%", "20%", "on"]


def test_a_log_that_is_not_to_be_had_ends_too() -> None:
    assert _told(_AWAY) == []
