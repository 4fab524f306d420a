"""Results of runs where Prefect's own clients find them: ``state.result()`` reads them.

A result is a small file of JSON in the run's folder, and is removed with it. In a pod, whose home
does not last, it goes to Prefect's default result storage, if there is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect._internal.result_records import ResultRecord
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.filesystems import LocalFileSystem
from prefect.logging import get_logger
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer

from infra.errors import ModelyardError

LARGEST_BYTES = 2**20
_FILE = "result.json"

# Without Prefect's encoder and decoder, which makes objects of what a component may have written.
_JSON: JSONSerializer[Any] = JSONSerializer(object_encoder=None, object_decoder=None)

_logger = get_logger("modelyard.results")


def stored(value: Any, flow_run_id: str, folder: Path | None) -> Any:
    """Store a result; the data of the state that carries it.

    A result that is larger than ``LARGEST_BYTES``, or cannot be stored, is the data itself, which
    only this process sees.

    Args:
        value: The result, as JSON has it.
        flow_run_id: The run.
        folder: The run's folder; None if it does not outlast the run.
    """
    store, key = _place(flow_run_id, folder)
    if store is None:
        return value
    try:
        if len(_JSON.dumps(value)) > LARGEST_BYTES:
            return value
        record = store.create_result_record(value, key=key)
        store.persist_result_record(record)
    except Exception as error:  # noqa: BLE001 (the edge to any storage; the run is complete)
        _logger.warning("The result is not available to Prefect's clients: %s", error)
        return value
    return record


def _place(flow_run_id: str, folder: Path | None) -> tuple[ResultStore | None, str]:
    """The store of a run's result, and the key in it."""
    if folder is not None:
        storage = LocalFileSystem(basepath=str(folder))
        return ResultStore(result_storage=storage, serializer=_JSON), _FILE
    running = FlowRunContext.get()
    configured = running.result_store if running else None
    if configured is None or configured.result_storage_block_id is None:
        return None, ""
    changed = {"serializer": _JSON, "metadata_storage": None}
    return configured.model_copy(update=changed), f"modelyard/{flow_run_id}/{_FILE}"


def data(state: State[Any]) -> Any:
    """Data of a state of this process; unlike ``state.result()`` it works in event loops."""
    found = state.data
    return found.result if isinstance(found, ResultRecord) else found


def failure(state: State[Any]) -> ModelyardError | None:
    """The :class:`ModelyardError` of a failed state of this process; None for another failure."""
    reason = data(state)
    return reason if isinstance(reason, ModelyardError) else None
