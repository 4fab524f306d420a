from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Cancelling, Completed, Pending, Running, Scheduled

from infra import run_lock, run_process
from infra.home import Home
from tests.locks import holding

RUN = uuid.uuid4()
CLAIMED = Pending()


@pytest.mark.parametrize(
    ("state", "attempt", "words"),
    [
        (CLAIMED, str(CLAIMED.id), ""),
        (CLAIMED, "", ""),
        (CLAIMED, str(uuid.uuid4()), "claimed again"),
        *((state, "", f"it is {state.name}") for state in (
            Running(), Completed(), Cancelling(), Cancelled(), Scheduled())),
        (None, "", "it is new"),
    ],
    ids=["claimed", "unnamed", "claimed again", "running", "completed", "cancelling", "cancelled",
         "scheduled", "new"],
)  # fmt: skip
def test_which_attempt_may_begin(state: State | None, attempt: str, words: str) -> None:
    found = run_process.refusal(FlowRun.model_construct(state=state), attempt)

    assert words in found
    assert bool(words) is bool(found)


class TestMain:
    @pytest.fixture(autouse=True)
    def _run(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state: State | None = CLAIMED
        self.begun: list[bool | None] = []
        self.problem: BaseException | None = None

        class Client:
            def read_flow_run(_, __: uuid.UUID) -> FlowRun:
                return FlowRun.model_construct(state=self.state)

        def engine(*_: Any, **__: Any) -> None:
            self.begun.append(run_lock.is_held(home, str(RUN)))
            if self.problem:
                try:
                    raise self.problem
                except OSError:
                    raise SystemExit(1)  # noqa: B904 (as Prefect's engine does)

        monkeypatch.setattr(
            run_process, "prefect_client", lambda **_: contextlib.nullcontext(Client())
        )
        monkeypatch.setattr(run_process.runpy, "run_module", engine)
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(RUN))
        monkeypatch.setenv(run_process.ATTEMPT_VARIABLE, str(CLAIMED.id))
        monkeypatch.setattr(run_lock, "_inherited", set())

    def _main(self) -> int:
        with run_lock.scope():
            return run_process.main()

    def test_the_lock_is_held_before_the_engine_runs(self) -> None:
        assert self._main() == 0
        assert self.begun == [True]

    def test_a_second_executor_runs_nothing(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS", 0)
        with holding(home, str(RUN)):
            assert self._main() == 0

        assert self.begun == []

    def test_nor_does_one_of_an_attempt_that_is_over(self) -> None:
        self.state = Running()

        assert self._main() == 0
        assert self.begun == []

    def test_what_it_ends_with_is_left_for_the_worker(self, home: Home) -> None:
        self.problem = OSError("No such flow.")

        with pytest.raises(SystemExit):
            self._main()

        assert run_process.error_path(home, str(RUN)).read_text() == "OSError: No such flow."

        self.problem = None
        self._main()
        assert not run_process.error_path(home, str(RUN)).exists()

    def test_the_lock_that_was_handed_over_is_taken_by_nobody_else(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = run_lock.path(home, str(RUN))
        path.parent.mkdir(parents=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        monkeypatch.setenv(run_lock.DESCRIPTOR_VARIABLE, str(descriptor))
        kept: list[Any] = []
        monkeypatch.setattr(run_lock, "_kept", kept)

        assert self._main() == 0
        run_lock.acquire(home, str(RUN))  # the flow's own, which is no second executor

        assert self.begun == [True]
        assert run_lock.is_held(home, str(RUN)) is True
        kept.pop().close()
        assert run_lock.is_held(home, str(RUN)) is False
