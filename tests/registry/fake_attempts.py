"""The attempts of runs, in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from infra.kubernetes.attempts import AttemptRecord, AttemptRetry


class FakeAttempts:
    """Keeps what it is told of each run's newest attempt."""

    def __init__(self) -> None:
        self.of: dict[str, AttemptRecord] = {}
        self.retried: dict[str, list[AttemptRetry]] = {}

    def begin(self, flow_run_id: str, state_id: str) -> int:
        number = self.of.get(flow_run_id, AttemptRecord()).number + 1
        before = self.retried.get(flow_run_id, [])
        failures = before[-1].failures if len(before) == number - 1 and before else 0
        self.of[flow_run_id] = AttemptRecord(number, state_id=state_id, failures=failures)
        return number

    def retry(self, flow_run_id: str, attempt: int, retry: AttemptRetry) -> None:
        assert self.of[flow_run_id].number == attempt
        self.retried.setdefault(flow_run_id, []).append(retry)

    def newest(self, flow_run_ids: Iterable[str]) -> dict[str, AttemptRecord]:
        return {one: self.of[one] for one in flow_run_ids if one in self.of}

    def record_waiting(self, flow_run_id: str, attempt: int, waiting: str) -> None:
        if self.of[flow_run_id].number == attempt:
            self.of[flow_run_id] = replace(self.of[flow_run_id], waiting=waiting)
