"""Results of runs."""

from __future__ import annotations

import copy
import json
import pickle

from flows.flow_results import FlowResult, TrainingResult

_ITEMS = {"mlflow_run_id": "m", "model_uri": None, "metrics": {"loss": 0.5}}


def test_it_is_a_dict_whose_items_are_attributes() -> None:
    result = TrainingResult(_ITEMS, flow_run_id="f", url="http://127.0.0.1/f")

    assert result == _ITEMS
    assert json.loads(json.dumps(result)) == _ITEMS
    assert {**result} == _ITEMS
    assert result.model_uri is None
    assert result.metrics["loss"] == 0.5


def test_a_copy_knows_its_run() -> None:
    """Prefect pickles the results of flows, and copies what tasks are given."""
    result = TrainingResult(_ITEMS, flow_run_id="f", url="u")

    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), copy.copy(result)):
        assert type(other) is TrainingResult
        assert (other, other.flow_run_id, other.url) == (result, "f", "u")


def test_it_is_made_of_its_items_alone_as_other_dicts_are() -> None:
    assert FlowResult([("a", 1)]) == {"a": 1}
