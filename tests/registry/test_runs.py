"""Which run is meant, and what is told of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed

from infra.errors import ConflictError
from registry import runs, statuses
from tests.registry.fake_runs import PrefectClient

REFUSED = Failed(name=statuses.CREATE_FAILED_NAME)


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


def test_a_run_that_goes_on_tells_for_how_long(prefect: PrefectClient) -> None:
    since = datetime.now(UTC) - timedelta(seconds=90)
    state = State(type=StateType.RUNNING, timestamp=since)
    run = prefect.add("tune", "slow", state=state)
    prefect.runs[next(iter(prefect.runs))].estimated_run_time = timedelta(seconds=90)

    assert runs.with_ids([run])[0].row["seconds"] == 90.0


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
        runs.retry(run)
    assert raised.value.code == "DeploymentGone"
    assert changed == []
