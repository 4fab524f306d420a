"""Which runs a list shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import AwaitingRetry, Completed, Crashed, Failed, Late, Running

from infra.errors import BadInputError, NotFoundError
from registry.runs import run_filters, runs
from registry.runs.run_filters import RunGroup
from tests.registry.fake_runs import PrefectClient

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    monkeypatch.setattr(runs.pending_reasons, "of", lambda _: {})
    return PrefectClient.installed(monkeypatch)


def names(**filters: object) -> list[str]:
    return [run.name for run in runs.list_all(**filters)]  # type: ignore[arg-type]


def asked(**filters: object) -> list[tuple[dict[str, object], str | None]]:
    """The queries of filters, without what is left out."""
    return [
        (query.runs.model_dump(exclude_none=True, exclude={"operator"}), query.flow)
        for query in run_filters.build(**filters)  # type: ignore[arg-type]
    ]


def state(*types: StateType, **name: list[str]) -> dict[str, object]:
    named = {"name": name} if name else {}
    return {"operator": "and_", "type": {"any_": list(types)}, **named}


def test_what_prefect_can_filter_by_it_is_asked_for() -> None:
    assert asked(states=["RUNNING"], name="dig", tags=["a", "b"], since=NOW) == [
        (
            {
                "state": state(StateType.PAUSED, StateType.RUNNING),
                "name": {"like_": "dig"},
                "tags": {"operator": "and_", "all_": ["a", "b"]},
                "expected_start_time": {"after_": NOW},
            },
            None,
        )
    ]


def test_without_filters_nothing_is_asked_for() -> None:
    assert asked() == [({}, None)]
    assert asked(flow="train") == [({}, "train")]


@pytest.mark.parametrize(
    ("word", "of_state", "more", "flow"),
    [
        ("FAIL TRAIN", {"not_any_": ["CreateFailed", "TimedOut"]}, {}, "train"),
        ("TIMED OUT", {"any_": ["TimedOut"]}, {}, None),
        ("CREATE FAILED", {}, {"tags": {"operator": "and_", "all_": ["no-mlflow-run"]}}, None),
    ],
)
def test_failures_are_told_apart_by_prefect(
    word: str, of_state: dict[str, list[str]], more: dict[str, object], flow: str | None
) -> None:
    failed = state(StateType.CRASHED, StateType.FAILED, **of_state)

    assert asked(states=[word]) == [({"state": failed, **more}, flow)]


def test_of_another_flow_no_such_failure_is_asked_for() -> None:
    assert asked(flow="tune", states=["FAIL TRAIN"]) == []


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


def test_prefects_names_of_states_are_read_too() -> None:
    assert asked(states=["Failed"]) == [({"state": state(StateType.FAILED)}, None)]
    late = state(StateType.SCHEDULED, any_=["Late"])
    assert asked(states=["Late"]) == [({"state": late}, None)]


def test_runs_of_prefects_states_are_found(prefect: PrefectClient) -> None:
    prefect.add("train", "failed", state=Failed(message="no luck"))
    prefect.add("train", "crashed", state=Crashed())
    prefect.add("train", "late", state=Late())
    prefect.add("train", "retried", state=AwaitingRetry())

    assert names(states=["failed"]) == ["failed"]
    assert names(states=["CRASHED"]) == ["crashed"]
    assert names(states=["late"]) == ["late"]
    assert sorted(names(states=["Scheduled"])) == ["late", "retried"]
    assert sorted(names(states=["fail train"])) == ["crashed", "failed"]


def test_a_state_that_no_run_has_is_refused() -> None:
    with pytest.raises(BadInputError) as raised:
        runs.list_all(states=["DONE"])

    assert raised.value.code == "StateUnknown"
    assert "FAIL TRAIN" in raised.value.hint
    assert "Crashed" in raised.value.hint


def test_words_that_share_a_type_are_told_apart_however_many_come_before(
    prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_PAGE", 2)
    for number in range(5):
        prefect.add("train", f"failed {number}", state=Failed(message="no luck"))
    refused = prefect.add("train", "refused", Failed(message="[CreateFailed] Odd: It is odd."))
    prefect.runs[UUID(refused)].tags = ["no-mlflow-run"]
    prefect.add("pipeline-run", "piped", state=Failed(message="no luck"))
    prefect.add("train", "done", state=Completed())
    prefect.add("train", "runs", state=Running())

    assert names(states=["CREATE FAILED"], limit=1) == ["refused"]
    assert sorted(names(states=["FAIL PIPELINE RUN", "COMPLETE"])) == ["done", "piped"]
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


def test_a_group_is_asked_for_by_its_tags_and_its_ids_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_filters, "_IDS_AT_ONCE", 2)
    ids = sorted(str(uuid4()) for _ in range(3))
    [query] = run_filters.build("train", tags=["mine"])
    parts = list(run_filters.within(query, RunGroup(("x", "y"), frozenset(ids))))

    assert {part.flow for part in parts} == {"train"}
    assert [part.runs.tags and part.runs.tags.all_ for part in parts] == [
        ["mine", "x"], ["mine", "y"], ["mine"], ["mine"],
    ]  # fmt: skip
    assert [[str(one) for one in part.runs.id.any_ or []] for part in parts if part.runs.id] == [
        ids[:2], ids[2:],
    ]  # fmt: skip
    assert list(run_filters.within(query, RunGroup(()))) == []


def test_a_group_has_runs_of_each_tag_and_id_once_and_none_without_its_labels(
    prefect: PrefectClient,
) -> None:
    found = [prefect.add("train", name) for name in ("new", "old", "by id", "of another")]
    for run, tags in zip(found, (["a"], ["b"], ["a"], ["a"]), strict=True):
        prefect.runs[UUID(run)].tags = tags
        prefect.runs[UUID(run)].labels = {"of": "it" if run != found[3] else "another"}
    group = RunGroup(("a", "b"), frozenset([found[2]]), {"of": "it"})

    assert sorted(names(groups=[group])) == ["by id", "new", "old"]
    assert names(groups=[group, RunGroup(("b",))]) == ["old"]


@pytest.mark.parametrize("earlier", [0, 500])
@pytest.mark.parametrize(
    "filters", [{"states": ["CREATE FAILED"]}, {"states": ["TIMED OUT"]}, {"states": ["STOPPED"]}]
)
def test_a_long_history_of_other_runs_is_not_read(
    prefect: PrefectClient, earlier: int, filters: dict[str, object]
) -> None:
    for number in range(earlier):
        prefect.add("train", f"failed {number}", state=Failed(message="no luck"))
        prefect.add("train", f"done {number}")

    assert names(**filters) == []
    assert prefect.read == 0


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
