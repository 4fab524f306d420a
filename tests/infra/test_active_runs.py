from __future__ import annotations

import asyncio

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Pending, Running

from infra import active_runs
from tests import prefect_server

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.mark.parametrize("page", [2, 3, 200])
def test_each_is_read_once_however_many_pages_there_are(
    page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active_runs, "_PAGE", page)
    ours, others = (prefect_server.Pool.made("flows.catalogue:nothing") for _ in range(2))
    going = [ours.run() for _ in range(5)]
    ended, elsewhere, waits = ours.run(), others.run(), ours.run()
    for run in (*going, elsewhere):
        prefect_server.set_state(run, Running())
    prefect_server.set_state(ended, Completed())
    prefect_server.set_state(waits, Pending())

    async def read(*states: StateType) -> list[object]:
        async with get_client() as client:
            return [run.id for run in await active_runs.read(client, states, [ours.name])]

    found = asyncio.run(read(StateType.RUNNING))
    assert len(found) == len(going)
    assert set(found) == {run.id for run in going}
    assert set(asyncio.run(read(StateType.RUNNING, StateType.PENDING))) == {*found, waits.id}
