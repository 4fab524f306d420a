"""Which runs a list shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import uuid4

import pytest
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Completed, Failed, Running

from infra.errors import BadInputError, NotFoundError
from registry.runs import run_filters, runs
from tests.registry.fake_runs import PrefectClient

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    monkeypatch.setattr(runs.pending_reasons, "of", lambda _: {})
    return PrefectClient.installed(monkeypatch)


def names(**filters: object) -> list[str]:
    return [run.name for run in runs.list_all(**filters)]  # type: ignore[arg-type]


def test_what_prefect_can_filter_by_it_is_asked_for() -> None:
    found = run_filters.build(states=["RUNNING"], name="dig", tags=["a", "b"], since=NOW)

    assert found.model_dump(exclude_none=True, exclude={"operator"}) == {
        "state": {"operator": "and_", "type": {"any_": [StateType.PAUSED, StateType.RUNNING]}},
        "name": {"like_": "dig"},
        "tags": {"operator": "and_", "all_": ["a", "b"]},
        "expected_start_time": {"after_": NOW},
    }


def test_without_filters_nothing_is_asked_for() -> None:
    found = run_filters.build(states=[], name="", tags=[], since=None)

    assert found.model_dump(exclude_none=True, exclude={"operator"}) == {}


@pytest.mark.parametrize(("flow", "known"), [("train", True), ("nightly", True), ("odd", False)])
def test_a_flow_is_known_to_modelyard_or_to_prefect(
    prefect: PrefectClient, flow: str, known: bool
) -> None:
    prefect.add("nightly", "one")
    if known:
        runs.list_all(flow)
        return
    with pytest.raises(NotFoundError) as raised:
        runs.list_all(flow)
    assert raised.value.code == "FlowUnknown"
    assert "train, tune" in raised.value.hint


def test_a_state_that_no_run_has_is_refused() -> None:
    with pytest.raises(BadInputError) as raised:
        run_filters.build(states=["DONE"], name="", tags=[], since=None)

    assert raised.value.code == "StateUnknown"
    assert "FAIL TRAIN" in raised.value.hint


def test_words_that_share_a_type_are_told_apart_however_many_come_before(
    prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_PAGE", 2)
    for number in range(5):
        prefect.add("train", f"failed {number}", state=Failed(message="no luck"))
    prefect.add("train", "refused", state=Failed(message="[CreateFailed] Odd: It is odd."))
    prefect.add("pipeline-run", "piped", state=Failed(message="no luck"))
    prefect.add("train", "done", state=Completed())
    prefect.add("train", "runs", state=Running())

    assert names(states=["CREATE FAILED"], limit=1) == ["refused"]
    assert names(states=["FAIL PIPELINE RUN", "COMPLETE"]) == ["piped", "done"]
    assert names(states=["FAIL TRAIN"], limit=3) == ["failed 0", "failed 1", "failed 2"]


def test_a_part_of_the_name_whatever_its_case(prefect: PrefectClient) -> None:
    for name in ("Digits small", "wine", "digits"):
        prefect.add("train", name)

    assert names(name="digits") == ["Digits small", "digits"]


@pytest.mark.parametrize("part", ["d%", "d_g"])
def test_a_part_of_the_name_has_no_wildcards(prefect: PrefectClient, part: str) -> None:
    for name in ("digits", f"my-{part}"):
        prefect.add("train", name)

    assert names(name=part, limit=1) == [f"my-{part}"]


def test_many_ids_are_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_filters, "_IDS_AT_ONCE", 2)
    ids = [str(uuid4()) for _ in range(5)]
    parts = list(run_filters.split_by_ids(FlowRunFilter(), ids))

    assert [[str(one) for one in part.id.any_ or []] for part in parts if part.id] == [
        ids[:2], ids[2:4], ids[4:],
    ]  # fmt: skip
    assert list(run_filters.split_by_ids(FlowRunFilter(), [])) == []
    assert list(run_filters.split_by_ids(FlowRunFilter(), None)) == [FlowRunFilter()]


def test_parts_are_merged_newest_first_and_read_as_far_as_needed() -> None:
    flow, read = uuid4(), []

    def scan(*days: int):  # type: ignore[no-untyped-def]
        for day in days:
            read.append(day)
            at = NOW + timedelta(days=day)
            yield FlowRun(flow_id=flow, name=str(day), expected_start_time=at)

    merged = run_filters.merge_newest_first([scan(9, 5, 1), scan(8, 7, 2, 0)])

    assert [run.name for run in islice(merged, 3)] == ["9", "8", "7"]
    assert 0 not in read
