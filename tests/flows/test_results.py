"""Results of runs, as a script reads them with Prefect's own client."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect._internal.result_records import ResultRecord
from prefect.client.schemas.objects import State
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.states import Completed, to_state_create

from flows import results, run_context
from flows.run_context import RunResult
from infra.home import Home
from infra.settings import Settings
from tests.flows.contexts import run_context_of

RESULT = {"mlflow_run_id": "m", "model_uri": None, "metrics": {"loss": 0.5}}


def of_the_api(state: State[Any]) -> State[Any]:
    """The state as another process gets it from Prefect's API."""
    sent = json.loads(to_state_create(state).model_dump_json())
    return State.model_validate({**sent, "id": str(uuid4())})


def test_another_process_reads_it(home: Home) -> None:
    context = run_context_of(home)
    state = run_context.completed(context, RunResult(RESULT, "Done."))

    assert results.data(state) == RESULT
    assert of_the_api(state).result(retry_result_failure=False) == RESULT
    # It is removed with the run's folder.
    assert [file.name for file in (home.runs / context.flow_run_id).iterdir()] == ["result.json"]


def test_what_a_component_wrote_stays_data(home: Home) -> None:
    """Prefect's decoder would import what is named here, and call it."""
    evil = {"outputs": {"x": {"__class__": "pathlib.Path", "data": "/"}}, "tasks": []}
    state = run_context.completed(run_context_of(home), RunResult(evil, ""))

    assert of_the_api(state).result(retry_result_failure=False) == evil


def test_a_retry_replaces_it(tmp_path: Path) -> None:
    for value in (RESULT, {"another": 1}):
        state: State[Any] = Completed(data=results.stored(value, "r", tmp_path))
    assert of_the_api(state).result(retry_result_failure=False) == {"another": 1}


@pytest.mark.parametrize(
    ("value", "folder"),
    [({"text": "x" * results.LARGEST_BYTES}, "new"), (RESULT, "file/below")],
    ids=["too large", "not writable"],
)
def test_what_is_not_stored_is_still_the_result_here(
    tmp_path: Path, value: dict[str, Any], folder: str
) -> None:
    (tmp_path / "file").touch()

    assert results.stored(value, "r", tmp_path / folder) == value
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


class TestInAPod:
    """Its home does not outlast the run."""

    @pytest.fixture(autouse=True)
    def _configured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage = LocalFileSystem(basepath=str(tmp_path))
        self.store = ResultStore(result_storage=self.storage)
        running = SimpleNamespace(result_store=self.store)
        monkeypatch.setattr(results.FlowRunContext, "get", lambda: running)

    def completed(self, home: Home) -> State[Any]:
        settings = Settings(home=home.root, home_lasts=False)
        context = run_context_of(home, settings=settings)
        return run_context.completed(context, RunResult(RESULT, ""))

    def test_a_file_of_it_would_be_lost(self, home: Home, tmp_path: Path) -> None:
        state = self.completed(home)

        assert results.data(state) == RESULT
        assert to_state_create(state).data is None
        assert list(tmp_path.iterdir()) == []

    def test_a_result_storage_of_prefect_s_gets_it(self, home: Home) -> None:
        self.storage._block_document_id = uuid4()

        state = self.completed(home)

        assert isinstance(state.data, ResultRecord)
        assert state.data.metadata.storage_block_id == self.storage._block_document_id
        key = state.data.metadata.storage_key
        assert key is not None
        stored = ResultStore(result_storage=self.storage, serializer=results._JSON).read(key)
        assert stored.result == RESULT
