"""Runs for a cluster, refused before they exist."""

from __future__ import annotations

import contextlib
import pkgutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import catalogue, placing, submission
from infra import work_pools
from infra.errors import BadInputError, ModelyardError
from infra.kubernetes import capacity_published
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.capacity import Capacity, Quota
from infra.settings import Settings
from registry import tracking
from registry.runs import runs
from registry.tunings import trial_flows
from tasks import placement

X = {"name": "x", "type": "double", "min": 0, "max": 1}
TUNING = {
    "parameters": [X], "objective": {"metric": "loss", "direction": "minimize"},
    "metrics": [{"name": "loss"}], "max_trials": 3,
}  # fmt: skip
OWN = {"uri": "s3://code/x", "entry_point": "train.py"}


def _quota(gpus: float) -> Capacity:
    hard = {"requests.nvidia.com/gpu": gpus}
    return Capacity(quotas=(Quota(name="gpus", hard=hard, used=hard),))


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Capacity]:
    """What each pool's cluster has told that it can give."""
    known: dict[str, Capacity] = {}
    monkeypatch.setattr(placing, "prefect_client", lambda **_: contextlib.nullcontext(None))
    monkeypatch.setattr(capacity_published, "read", lambda _, pool: known.get(pool))
    return known


def _check(flow: str, given: dict[str, Any]) -> None:
    placing.check(flow, given)


class TestCapacity:
    def test_more_than_the_quota_is_refused_with_the_numbers(
        self, told: dict[str, Capacity]
    ) -> None:
        told["gpu"] = _quota(4)
        fits = {"resources": {"instance_type": "gpu.a100", "nodes": 4}}  # all used: it waits
        _check("train", fits)
        with pytest.raises(ClusterError) as raised:
            _check("train", {"resources": {"instance_type": "gpu.a100x8"}})

        assert raised.value.code == "QuotaExceeded"
        assert "8 nvidia.com/gpu" in raised.value.message
        assert "allows 4" in raised.value.message

    def test_a_tunings_trials_are_looked_at_in_their_own_pool(
        self, told: dict[str, Capacity]
    ) -> None:
        given = {**TUNING, "resources": {"instance_type": "gpu.a100"}}
        told["cpu"] = _quota(0)
        _check("tune", given)  # it needs none itself
        told["gpu"] = _quota(0)
        with pytest.raises(ClusterError):
            _check("tune", given)

    def test_what_nobody_has_told_refuses_nothing(self) -> None:
        _check("train", {"resources": {"instance_type": "gpu.h200x8", "nodes": 256}})


class TestMounts:
    def test_one_that_the_cluster_has_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "cluster.yaml"
        file.write_text("nas: {team: {claim: team-data}}")
        monkeypatch.setenv("MODELYARD_CLUSTER", str(file))
        _check("train", {"resources": {"mounts": ["nas://team"]}, "output_uri": "nas://team:/x"})
        with pytest.raises(BadInputError) as raised:
            _check("train", {"datasets": [{"name": "d", "uri": "nas://tame:/x"}]})

        assert raised.value.code == "NasUnknown"
        assert "Known are: team." in raised.value.message

    def test_where_its_configuration_is_not_here_the_cluster_judges(self) -> None:
        _check("train", {"resources": {"mounts": ["any"]}})


class TestSubmission:
    """Runs in pools of a cluster, seen from a machine that is no part of it."""

    @pytest.fixture(autouse=True)
    def _submitter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, dict[str, Any]]] = []
        monkeypatch.setenv("MODELYARD_GPUS", "none")
        monkeypatch.setattr(work_pools, "is_remote", lambda _: True)
        monkeypatch.setattr(trial_flows, "pool_type", lambda: work_pools.CLUSTER_TYPE)
        monkeypatch.setattr(tracking, "check_experiment", lambda *_: None)
        monkeypatch.setattr(
            runs, "submit", lambda name, given, *_: self.made.append((name, given)) or "id"
        )
        store = SimpleNamespace(
            is_directory=lambda: True, exists=lambda: True, check_writable=lambda: None,
            entries=lambda: [SimpleNamespace(name="train.py")],
        )  # fmt: skip
        monkeypatch.setattr("infra.site.storage.store", lambda _: store)

    def test_its_gpus_disks_and_processors_do_not_count(self) -> None:
        asked = {
            "instance_type": "gpu.a100", "nodes": 200, "processes_per_node": 64,
            "data_storage_gib": 1e8, "boot_storage_gib": 1e8, "mounts": ["nas://team"],
        }  # fmt: skip
        submission.start("train", {"algorithm": OWN, "resources": asked})
        submission.start("tune", {**TUNING, "algorithm": OWN, "resources": asked})
        inline = {"dispatch": "inline", "parallel_trials": 200, "max_trials": 500}
        submission.start("tune", {**TUNING, **inline, "algorithm": OWN})

        assert [name for name, _ in self.made] == ["train", "tune", "tune"]
        assert self.made[0][1]["resources"]["mounts"] == ["nas://team"]

    def test_a_provided_algorithm_is_in_the_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_: Any) -> None:
            raise BadInputError("It is not installed.", code="PackageMissing")

        monkeypatch.setattr("tasks.provided.ProvidedAlgorithm.check_packages", missing)
        submission.start("train", {
            "algorithm": {"provided": "gradient-boosting"},
            "datasets": [{"name": "train", "uri": "s3://data/train"}],
            "hyperparameters": {"target": "y"},
        })  # fmt: skip

        assert len(self.made) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"algorithm": {"uri": "/mine", "entry_point": "train.py"}},
            {"algorithm": {"uri": "mine", "entry_point": "train.py"}},
            {"datasets": [{"name": "d", "uri": "/data"}]},
            {"checkpoint_input_uri": "file:///data"},
            {"checkpoint_uri": "/data"},
            {"output_uri": "~/models"},
            {"logs": {"uri": "/logs"}},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("flow", ["train", "tune"])
    def test_its_own_paths_are_refused_everywhere(self, flow: str, change: dict[str, Any]) -> None:
        given = {"algorithm": OWN, **(TUNING if flow == "tune" else {}), **change}
        with pytest.raises(ModelyardError) as raised:
            submission.start(flow, given)

        assert raised.value.code == "PathNotShared"
        assert self.made == []

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"resources": {"instance_type": "gpu.moon"}}, "InstanceTypeUnknown"),
            ({"resources": {"torchrun": True}, "algorithm": {**OWN, "entry_point": "a.sh"}},
             "EntryPointMissing"),
            ({"resources": {"mounts": ["s3://x"]}}, "MountInvalid"),
            ({"max_minutes": -1}, "MaxMinutesInvalid"),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_no_machine_could_do_is_refused_all_the_same(
        self, given: dict[str, Any], code: str
    ) -> None:
        with pytest.raises(ModelyardError) as raised:
            submission.start("train", {"algorithm": OWN, **given})

        assert raised.value.code == code
        assert self.made == []

    def test_what_the_cluster_can_never_give_makes_no_run(self, told: dict[str, Capacity]) -> None:
        told["gpu"] = _quota(1)
        asked = {"instance_type": "gpu.a100", "nodes": 2}
        with pytest.raises(ClusterError):
            submission.start("train", {"algorithm": OWN, "resources": asked})

        assert self.made == []

    def test_a_pipelines_file_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "p.yaml"
        file.write_text("x")
        with pytest.raises(BadInputError) as raised:
            submission.start("pipeline-run", {"pipeline": str(file)})

        assert raised.value.code == "PathNotShared"
        assert "modelyard pipeline upload" in raised.value.hint


def test_a_tunings_own_pod_does_not_judge_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no GPU; each trial has a pod."""
    assert Settings(gpus="none").gpus == "none"
    monkeypatch.setenv("MODELYARD_GPUS", "none")
    monkeypatch.setattr(trial_flows, "pool_type", lambda: work_pools.CLUSTER_TYPE)
    monkeypatch.setattr(tracking, "check_experiment", lambda *_: None)
    given = {
        **TUNING, "resources": {"instance_type": "gpu.a100"},
        "algorithm": {"uri": "/nas/code/x", "entry_point": "train.py"},
    }  # fmt: skip
    tune = catalogue.find("tune")
    tune.checked(given)

    with pytest.raises(ModelyardError):  # what is inline is run by the pod itself
        tune.checked({**given, "dispatch": "inline"})


def test_templates_are_applied_as_the_flow_does() -> None:
    assert placement._PLANNERS.keys() <= set(catalogue.names())
    for flow in catalogue.load_all():
        reader = placement._FROM_TEMPLATE.get(flow.name)
        assert (pkgutil.resolve_name(reader) if reader else None) is flow.spec.from_template
