"""Names of runs are unique, also when many runs are created at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed, Pending, Running

from infra.errors import ConflictError
from registry import tracking
from registry.runs import labels, run_names
from registry.tracking import Opening
from tests.registry.fake_runs import PrefectClient, new_id
from tests.registry.server import MlflowServer

_AT_ONCE = 8


@pytest.fixture
def prefect(mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    """A Prefect without runs, beside a real MLflow and a real catalogue."""
    fake = PrefectClient()
    monkeypatch.setattr(run_names, "prefect_client", lambda **_: contextlib.nullcontext(fake))
    return fake


def _accepted(do: Callable[[], Any]) -> int:
    """How many of several calls at once were not refused as having a name that is taken."""

    def accepted(_: int) -> bool:
        try:
            do()
        except ConflictError as error:
            assert error.code == "NameTaken"  # noqa: PT017 (and any other one is raised)
            return False
        return True

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return sum(threads.map(accepted, range(_AT_ONCE)))


def test_of_runs_submitted_at_once_one_gets_the_name(prefect: PrefectClient, name: str) -> None:
    def submit() -> None:
        with run_names.claiming("train", name, "Default"):
            prefect.add("train", name, state=Pending())

    assert _accepted(submit) == 1
    assert len(prefect.runs) == 1


def test_of_runs_that_begin_at_once_one_gets_the_name(mlflow: MlflowServer, name: str) -> None:
    def begin() -> None:
        opening = Opening(new_id(), "train", name, name, "", "me", {}, unique=True)
        tracking.open_run(opening, retried=False)

    assert _accepted(begin) == 1


def test_the_next_free_number(prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_names, "_PAGE", 2)
    with run_names.claiming_next("train", "a.b", "Default") as first:
        pass
    for name in ("a.b-20261125T", "a.b-c-7", "a.b-2", "a.b-10", "a.b-x"):
        prefect.add("train", name, state=Completed())
    prefect.add("train", "a.b-11", state=Running())  # in this experiment, and active
    prefect.add("tune", "a.b-30", state=Completed())
    with run_names.claiming_next("train", "a.b", "Default") as following:
        pass

    assert (first, following) == ("a.b-1", "a.b-12")


@pytest.mark.parametrize(
    ("state", "experiment", "labelled", "taken"),
    [
        (Running(), None, {}, True),
        (Running(), "other", {}, False),
        (Running(), None, {labels.PARENT: "tuning"}, False),
        (Completed(), None, {}, False),
        (Failed(), None, {}, False),
    ],
    ids=["active", "another experiment", "a trial", "removed from MLflow", "refused"],
)
def test_which_runs_of_prefect_have_a_name(
    prefect: PrefectClient, name: str, state: State[Any], experiment: str | None,
    labelled: dict[str, str], taken: bool,
) -> None:  # fmt: skip
    run_id = prefect.add("train", name, state=state)
    run = prefect.runs[UUID(run_id)]
    run.parameters = {"experiment": experiment} if experiment else {}
    run.labels = {**labelled}

    refused = pytest.raises(ConflictError, match=run_id) if taken else contextlib.nullcontext()
    with refused, run_names.claiming("train", name, "Default"):
        pass
    with run_names.claiming("train", name, "Default", run_id):  # its own
        pass
