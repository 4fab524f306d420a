"""Which run is meant, and what is told of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling, Completed, Failed, Pending, Running

from infra import work_pools
from infra.errors import ConflictError, NotFoundError
from registry import history
from registry.runs import run_requests, run_retries, runs
from tests.registry.fake_runs import PrefectClient

REFUSED = Failed(message="[CreateFailed] Odd: It is odd.")


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    return PrefectClient.installed(monkeypatch)


def test_a_run_that_was_refused_takes_no_name_away(prefect: PrefectClient) -> None:
    prefect.add("tune", "same", state=REFUSED)
    held = prefect.add("tune", "same", state=Completed())
    prefect.add("tune", "same", state=REFUSED)

    assert runs.find("same") == held


def test_one_that_was_refused_can_be_meant(prefect: PrefectClient) -> None:
    refused = prefect.add("tune", "same", state=REFUSED)

    assert runs.find("same") == refused


@pytest.mark.parametrize("state", [Completed(), REFUSED], ids=lambda state: state.name)
def test_several_are_told_apart_by_their_ids(prefect: PrefectClient, state: State) -> None:
    several = [prefect.add("tune", "same", state=state) for _ in range(2)]
    with pytest.raises(ConflictError):
        runs.find("same")

    assert [runs.find(key) for key in several] == several


def test_the_beginning_of_an_id_is_enough(prefect: PrefectClient) -> None:
    made = [prefect.add("train", f"r{number}") for number in range(40)]

    for run in made:
        assert runs.find(run[:30]) == run
        assert runs.find(run.upper()[:25]) == run
        assert runs.find(run.replace("-", "")[:28]) == run
        with pytest.raises(NotFoundError) as caught:
            runs.find(run[:7])
        assert "8 characters" in caught.value.hint


def test_runs_whose_ids_begin_alike_are_listed_to_choose_from(prefect: PrefectClient) -> None:
    alike = [f"01234567-89ab-4cde-8000-00000000000{number}" for number in range(3)]
    for number, key in enumerate(alike):
        made = prefect.runs.pop(UUID(prefect.add("train", f"r{number}")))
        prefect.runs[UUID(key)] = made.model_copy(update={"id": UUID(key)})
    for _ in range(20):
        prefect.add("train", "other")

    with pytest.raises(ConflictError, match="have an id that begins with '01234567'") as raised:
        runs.find("01234567")
    assert {tuple(line.split()[:2]) for line in raised.value.hint.splitlines()[1:]} == {
        (key, f"r{number}") for number, key in enumerate(alike)
    }
    assert runs.find(alike[1]) == alike[1]


def test_a_name_goes_before_the_beginning_of_an_id(prefect: PrefectClient) -> None:
    other = prefect.add("train", "other")
    named = prefect.add("train", other[:8])

    assert runs.find(other[:8]) == named


def test_those_of_one_name_are_listed_to_choose_from(prefect: PrefectClient) -> None:
    ran = prefect.add("tune", "same", state=Completed())
    failed = prefect.add("tune", "same", state=Failed(message="no luck"))
    prefect.runs[UUID(ran)].start_time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    prefect.runs[UUID(ran)].parameters = {"experiment": "digits"}

    with pytest.raises(ConflictError) as raised:
        runs.show("same")

    began = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).astimezone()
    first, *choices = raised.value.hint.splitlines()
    assert "id" in first
    assert {line.split()[0]: " ".join(line.split()[1:]) for line in choices} == {
        ran: f"COMPLETE in digits started {began:%Y-%m-%d %H:%M:%S %Z}",
        failed: "FAIL HYPERPARAMETER TUNING in Default not started",
    }


def test_of_very_many_of_one_name_the_newest_are_listed(prefect: PrefectClient) -> None:
    for second in range(13):
        run = prefect.add("train", "same")
        prefect.runs[UUID(run)].created = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)

    with pytest.raises(ConflictError) as raised:
        runs.find("same")

    lines = raised.value.hint.splitlines()
    assert lines[1].split()[0] == run
    assert lines[-1].strip().startswith("and 3 more")
    assert len(lines) == 12


def test_a_run_that_goes_on_tells_for_how_long(prefect: PrefectClient) -> None:
    since = datetime.now(UTC) - timedelta(seconds=90)
    state = State(type=StateType.RUNNING, timestamp=since)
    run = prefect.add("tune", "slow", state=state)
    prefect.runs[next(iter(prefect.runs))].estimated_run_time = timedelta(seconds=90)

    assert runs.with_ids([run])[0].seconds == 90.0


def test_what_came_from_something_deleted_is_not_retried(
    prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prefect.add("pipeline-run", "orphan", state=Failed())
    prefect.runs[UUID(run)].deployment_id = uuid4()
    changed: list[Any] = []

    def gone(deployment_id: UUID) -> NoReturn:
        raise ObjectNotFound(Exception())

    monkeypatch.setattr(prefect, "read_deployment", gone, raising=False)
    monkeypatch.setattr(
        prefect, "set_flow_run_state", lambda *told, **_: changed.append(told), raising=False
    )
    with pytest.raises(ConflictError) as raised:
        run_retries.retry(run)
    assert raised.value.code == "DeploymentGone"
    assert changed == []


def test_one_whose_pool_was_made_anew_is_not_retried(
    prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prefect.add("train", "homeless", state=Failed())
    prefect.runs[UUID(run)].deployment_id = uuid4()
    monkeypatch.setattr(prefect, "read_deployment", lambda _: None, raising=False)
    with pytest.raises(ConflictError) as raised:
        run_retries.retry(run)

    assert raised.value.code == "PoolGone"
    assert f"runs copy {run}" in raised.value.hint


def test_one_whose_experiment_was_deleted_keeps_its_end(
    prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str, run_id: str) -> NoReturn:
        raise ConflictError(f"{name} was deleted.", f"Copy {run_id}.", code="ExperimentDeleted")

    changed: list[Any] = []
    pooled = prefect.add("train", "pooled", state=Failed())
    called = prefect.add("train", "called", state=Failed())
    for run in (pooled, called):
        prefect.runs[UUID(run)].parameters = {"experiment": "garden"}
    prefect.runs[UUID(pooled)].deployment_id = uuid4()
    prefect.runs[UUID(pooled)].work_pool_name = "cpu"
    monkeypatch.setattr(prefect, "read_deployment", lambda _: None, raising=False)
    monkeypatch.setattr(
        prefect, "set_flow_run_state", lambda *told, **_: changed.append(told), raising=False
    )
    monkeypatch.setattr(run_retries.tracking, "check_experiment", refused)

    for again in (lambda: run_retries.retry(pooled), lambda: run_retries.reopen("train", called)):
        with pytest.raises(ConflictError, match="garden was deleted") as raised:
            again()
        assert raised.value.code == "ExperimentDeleted"
    assert changed == []


class TestReopen:
    @pytest.fixture(autouse=True)
    def _changed(self, prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prefect = prefect
        self.states: list[tuple[str, str]] = []

        def change(run_id: UUID, state: State, *, force: bool) -> None:
            assert force
            self.states.append((str(run_id), state.name or ""))

        monkeypatch.setattr(prefect, "set_flow_run_state", change, raising=False)
        monkeypatch.setattr(history, "record", lambda *_, **__: None)
        monkeypatch.setattr(run_retries.tracking, "check_experiment", lambda *_: None)

    @pytest.mark.parametrize("state", [Failed(), REFUSED, Cancelled()], ids=lambda one: one.name)
    def test_a_call_that_failed_is_due_again(self, state: State) -> None:
        run = self.prefect.add("train", "called", state=state)

        assert str(run_retries.reopen("train", "called").id) == run
        assert self.states == [(run, "AwaitingRetry")]

    @pytest.mark.parametrize(
        ("flow", "deployed", "state", "told"),
        [
            ("tune", False, Failed(), "not a call of train"),
            ("train", True, Failed(), "not a call of train"),
            ("train", False, Completed(), "COMPLETE"),
            ("train", False, Running(), "RUNNING"),
        ],
    )
    def test_another_is_refused(self, flow: str, deployed: bool, state: State, told: str) -> None:
        run = self.prefect.add(flow, "other", state=state)
        if deployed:
            self.prefect.runs[UUID(run)].deployment_id = uuid4()
        with pytest.raises(ConflictError) as raised:
            run_retries.reopen("train", run)

        assert told in raised.value.message
        assert self.states == []


class TestStop:
    @pytest.fixture(autouse=True)
    def _quiet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patience: list[float] = []
        monkeypatch.setattr(run_requests, "request_stop", lambda _: None)
        monkeypatch.setattr(history, "record", lambda *_, **__: None)
        monkeypatch.setattr(work_pools, "is_remote", lambda pool: pool == "cluster")

    def _wait(self, _: str, seconds: float) -> bool:
        self.patience.append(seconds)
        return False

    @pytest.mark.parametrize(("pool", "seconds"), [("here", 60), (None, 60), ("cluster", 120)])
    def test_pods_have_their_grace(
        self, prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch, pool: str, seconds: float
    ) -> None:
        monkeypatch.setattr(runs, "wait", self._wait)
        run = prefect.add("train", "slow", state=Running())
        prefect.runs[UUID(run)].work_pool_name = pool
        with pytest.raises(ConflictError) as raised:
            runs.stop(run)

        assert self.patience == [seconds]
        assert f"after {seconds} s" in raised.value.message


class TestWaiting:
    @pytest.fixture(autouse=True)
    def _alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "of", lambda *_: [])

    def _add(self, prefect: PrefectClient, state: State, what: str | None) -> str:
        run = prefect.add("train", "r", state=state)
        if what is not None:
            prefect.attempts.begin(run, "")
            prefect.attempts.record_waiting(run, 1, what)
        return run

    @pytest.mark.parametrize("state", [Pending(), Cancelling(), State(type=StateType.SCHEDULED)])
    def test_what_it_waits_for_is_told(self, prefect: PrefectClient, state: State) -> None:
        run = self._add(prefect, state, "for 8 GPUs")

        assert runs.show(run)["waiting"] == "for 8 GPUs"
        assert runs.show(run)["message"] == "for 8 GPUs"
        assert runs.list_all()[0]["waiting"] == "for 8 GPUs"

    def test_a_message_of_its_state_goes_first(self, prefect: PrefectClient) -> None:
        run = self._add(prefect, Pending(message="Submitted."), "for 8 GPUs")

        assert runs.show(run)["message"] == "Submitted."

    @pytest.mark.parametrize(
        ("state", "what"),
        [(Pending(), ""), (Pending(), None), (Running(), None), (Completed(), "x"),
         (Cancelled(), "x"), (Failed(), "x")],
    )  # fmt: skip
    def test_one_that_does_not_wait_tells_nothing(
        self, prefect: PrefectClient, state: State, what: str | None
    ) -> None:
        run = self._add(prefect, state, what)

        assert runs.show(run)["waiting"] == ""
        assert "waiting" not in runs.list_all()[0].to_json()
