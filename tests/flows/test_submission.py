"""What may be changed of a run that exists."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import submission
from infra import work_pools
from infra.errors import BadInputError, ConflictError, ModelyardError
from registry.pipelines import pipelines
from registry.runs import runs
from registry.runs.run_views import RunDetailView
from registry.tunings import trial_flows
from tests.pipelines import corpus


def test_a_copy_reads_its_changes_for_the_flow_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = RunDetailView.model_construct(
        id="r", flow="train", parameters={"name": "n", "description": "d"}
    )
    monkeypatch.setattr(runs, "show", lambda _: found)
    monkeypatch.setattr(submission.experiments, "name_now", lambda *_: "")
    started: list[Any] = []
    monkeypatch.setattr(submission, "start", lambda *given: started.append(given) or "new")

    assert submission.copy("r", lambda flow: {"description": f"as {flow}"}) == "new"
    assert submission.copy("r", {"name": "m"}) == "new"
    assert started == [
        ("train", {"name": "", "description": "as train"}),
        ("train", {"name": "m", "description": "d"}),
    ]


X = {"name": "x", "type": "double", "min": 0, "max": 1}


class TestUpdate:
    @pytest.fixture(autouse=True)
    def _run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[str, Any] = {
            "flow": "tune", "state": "RUNNING", "name": "n",
            "parameters": {"max_trials": 3, "parameters": [X], "name": "n"},
        }  # fmt: skip
        self.remote = False
        self.changed: list[tuple[Any, ...]] = []
        monkeypatch.setattr(runs, "show", lambda _: RunDetailView.model_construct(**self.found))
        monkeypatch.setattr(runs, "update", lambda *given: self.changed.append(given) or {})
        monkeypatch.setattr(trial_flows, "pool_type", lambda: None)
        monkeypatch.setattr(work_pools, "is_remote", lambda _: self.remote)

    def test_a_name_and_a_description_need_no_flow(self) -> None:
        self.found = {}
        submission.update("r", "new", "about", {})

        assert self.changed == [("r", "new", "about")]

    @pytest.mark.parametrize("state", ["RUNNING", "STOPPED", "CREATE REQUESTED", "TIMED OUT"])
    def test_only_what_is_given_is_changed(self, state: str) -> None:
        self.found["state"] = state
        submission.update("r", None, "about", {"max_trials": 9, "parallel_trials": 2})

        assert self.changed == [("r", None, "about", {"max_trials": 9, "parallel_trials": 2})]

    def test_null_takes_a_limit_away(self) -> None:
        self.found["parameters"] |= {"max_failed_trials": 2}
        submission.update("r", None, None, {"max_failed_trials": None})

        assert self.changed == [("r", None, None, {"max_failed_trials": None})]

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"seed": 1}, "ParameterNotChangeable"),
            ({"max_trials": 9, "strategy": "grid"}, "ParameterNotChangeable"),
            ({"nonsense": 1}, "ParameterNotChangeable"),
            ({"max_trials": 0}, "ParameterInvalid"),
            ({"max_trials": "9"}, "ParameterInvalid"),
            ({"parallel_trials": 4}, "LimitAboveMaxTrials"),
            ({"max_trials": None}, "MaxTrialsMissing"),
        ],
        ids=str,
    )
    def test_what_is_refused_changes_nothing(self, given: dict[str, Any], code: str) -> None:
        with pytest.raises(BadInputError) as raised:
            submission.update("r", "new", None, given)

        assert raised.value.code == code
        assert raised.value.hint
        assert self.changed == []

    @pytest.mark.parametrize("remote", [False, True])
    def test_the_machine_that_is_asked_is_the_runs(self, remote: bool) -> None:
        self.remote = remote
        self.found["parameters"] |= {"max_trials": 999, "dispatch": "inline"}
        given = {"parallel_trials": 250}
        with contextlib.nullcontext() if remote else pytest.raises(BadInputError) as raised:
            submission.update("r", None, None, given)

        assert self.changed == ([("r", None, None, given)] if remote else [])
        assert remote or raised.value.code == "ParallelTrialsTooMany"  # type: ignore[union-attr]

    def test_a_training_heeds_nothing_but_a_time_limit(self) -> None:
        self.found |= {"flow": "train", "state": "FAIL TRAIN"}
        with pytest.raises(BadInputError) as raised:
            submission.update("r", None, None, {"seed": 5})

        assert raised.value.code == "ParameterNotChangeable"
        assert "can: max_minutes. " in raised.value.hint

    @pytest.mark.parametrize("minutes", [90, 0.5, None])
    @pytest.mark.parametrize("flow", ["train", "tune", "batch-inference", "evaluate"])
    def test_a_run_that_timed_out_may_be_retried_with_another_limit(
        self, flow: str, minutes: float | None
    ) -> None:
        needed = {"tune": self.found["parameters"], "evaluate": {"task": "regression"}}
        given = needed.get(flow, {})
        self.found |= {
            "flow": flow,
            "state": "TIMED OUT",
            "id": "i",
            "parameters": given | {"max_minutes": 1},
        }

        submission.update("r", None, None, {"max_minutes": minutes})

        assert self.changed == [("r", None, None, {"max_minutes": minutes})]
        self.found["state"] = "RUNNING"
        with pytest.raises(ConflictError, match="changes of max_minutes count for") as raised:
            submission.update("r", None, None, {"max_minutes": minutes})
        assert raised.value.code == "RunStillActive"

    @pytest.mark.parametrize("minutes", [0, -1])
    def test_a_time_limit_that_is_none_is_refused(self, minutes: float) -> None:
        self.found |= {"flow": "train", "state": "TIMED OUT", "parameters": {}}
        with pytest.raises(BadInputError) as raised:
            submission.update("r", None, None, {"max_minutes": minutes})

        assert raised.value.code == "MaxMinutesInvalid"
        assert self.changed == []

    @pytest.mark.parametrize("state", ["FAIL BATCH INFERENCE", "STOPPED", "CREATE FAILED"])
    def test_a_retry_may_have_other_limits(self, state: str) -> None:
        self.found |= {"flow": "batch-inference", "state": state, "parameters": {"model": "m/1"}}
        given = {"max_failed": 9, "timeout_seconds": 2.5}

        submission.update("r", None, None, given)

        assert self.changed == [("r", None, None, given)]

    @pytest.mark.parametrize(
        ("state", "given", "code"),
        [
            ("RUNNING", {"max_failed": 9}, "RunStillActive"),
            ("CREATE REQUESTED", {"max_failed": 9}, "RunStillActive"),
            ("COMPLETE IN PROGRESS", {"max_failed": 9}, "RunStillActive"),
            ("STOPPED", {"max_failed": -1}, "ParameterInvalid"),
            ("STOPPED", {"max_failed": 9, "key": "id"}, "ParameterNotChangeable"),
        ],
    )
    def test_limits_of_a_retry_that_are_refused(
        self, state: str, given: dict[str, Any], code: str
    ) -> None:
        self.found |= {
            "flow": "batch-inference", "state": state, "parameters": {"model": "m/1"}, "id": "i",
        }  # fmt: skip
        with pytest.raises(ModelyardError) as raised:
            submission.update("r", None, None, given)

        assert (raised.value.code, bool(raised.value.hint)) == (code, True)
        assert self.changed == []

    def test_one_that_is_complete_heeds_nothing_any_more(self) -> None:
        self.found["state"] = "COMPLETE"
        with pytest.raises(ConflictError) as raised:
            submission.update("r", None, None, {"max_trials": 9})

        assert "runs copy" in raised.value.hint
        assert self.changed == []


class TestStart:
    @pytest.fixture(autouse=True)
    def _site(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[Any] = []

        @contextlib.contextmanager
        def claiming(*of: str) -> Iterator[None]:
            self.done.append(("claimed", *of))
            yield
            self.done.append("released")

        monkeypatch.setattr(submission.placing, "checked", lambda _, given: given)
        monkeypatch.setattr(submission.run_names, "claiming", claiming)
        monkeypatch.setattr(runs, "submit", lambda *given: self.done.append(given) or "id")

    @pytest.mark.parametrize(
        ("experiment", "named"), [({}, "Default"), ({"experiment": "mine"}, "mine")]
    )
    def test_a_name_is_held_while_the_run_is_created(
        self, experiment: dict[str, str], named: str
    ) -> None:
        assert submission.start("train", {"name": "n", **experiment}) == "id"

        claimed, submitted, released = self.done
        assert claimed == ("claimed", "train", "n", named)
        assert submitted[:3] == ("train", {"name": "n", **experiment}, "n")
        assert released == "released"

    @pytest.mark.parametrize("uploaded", [True, False])
    def test_a_pipeline_run_without_a_name_is_numbered(
        self, uploaded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / "of-another-name.yaml"
        file.write_bytes(corpus.compiled("adding"))
        pipeline = "adding:3" if uploaded else str(file)

        @contextlib.contextmanager
        def claiming_next(*of: str) -> Iterator[str]:
            assert of == ("pipeline-run", "adding", "Default")
            yield "adding-7"

        monkeypatch.setattr(submission.run_names, "claiming_next", claiming_next)
        monkeypatch.setattr(pipelines, "deployment_of", lambda _: "pipeline-run")
        submission.start("pipeline-run", {"pipeline": pipeline, "name": ""})

        ((_, given, name, _),) = self.done
        assert (given["name"], name) == ("", "adding-7")

    @pytest.mark.parametrize(
        ("flow", "given"), [("train", {"name": ""}), ("pipeline-artifacts-cleanup", {})]
    )
    def test_a_run_without_a_name_claims_none(self, flow: str, given: dict[str, str]) -> None:
        submission.start(flow, given)

        assert [one[0] for one in self.done] == [flow]
