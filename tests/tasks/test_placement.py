"""What parameters of runs ask of a cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra import instance_types
from infra.errors import BadInputError
from infra.instance_types import InstanceType
from infra.kubernetes import capacity
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import Placement
from infra.kubernetes.capacity import Capacity, NodeCapacity, Quota
from infra.settings import Settings
from registry import training_templates
from tasks import placement

GIB = 2**30


def _type(name: str) -> InstanceType:
    return instance_types.find(name, Settings())


SMALL = Placement(_type("cpu.small"))
PIPELINE = Placement(SMALL.shape, mounts=("*",), makes_jobs=True)
ALL = {
    "instance_type": "gpu.a100", "nodes": 3, "processes_per_node": 8, "torchrun": True,
    "image": "registry/mine:1", "boot_storage_gib": 20, "data_storage_gib": 100,
    "mounts": ["nas://team", "shared"], "allow_cpu": True,
}  # fmt: skip


class TestTrain:
    def test_everything_that_is_asked_for(self) -> None:
        assert placement.plan("train", {"resources": ALL, "max_minutes": 1.5}) == Placement(
            shape=_type("gpu.a100"),
            nodes=3,
            image="registry/mine:1",
            boot_storage_gib=20,
            data_storage_gib=100,
            mounts=("shared", "team"),
            seconds=90,
            allow_cpu=True,
        )

    def test_what_is_usual(self) -> None:
        assert placement.plan("train", {}) == SMALL

    def test_network_folders_that_are_named_anywhere(self) -> None:
        given = {
            "datasets": [{"name": "a", "uri": "nas://data:/a"}, {"name": "b", "uri": "s3://b/c"}],
            "algorithm": {"uri": "/nas/code/x", "entry_point": "train.py"},
            "output_uri": "nas://out:/models",
            "description": "nas://words:/are-none",
            "logs": {"uri": "nas://logs:/"},
            "hyperparameters": {"uri": "nas://a-script-may-read:/it"},
        }
        found = placement.plan("train", given).mounts

        assert found == ("a-script-may-read", "code", "data", "logs", "out")

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"resources": {"instance_type": "gpu.moon"}}, "InstanceTypeUnknown"),
            ({"resources": {"nodes": 0}}, "ParameterInvalid"),
            ({"resources": {"mounts": ["s3://bucket"]}}, "MountInvalid"),
            ({"nonsense": 1}, "ParameterUnknown"),
        ],
        ids=str,
    )
    def test_what_is_wrong(self, given: dict[str, Any], code: str) -> None:
        with pytest.raises(BadInputError) as raised:
            placement.plan("train", given)

        assert raised.value.code == code


class TestTemplate:
    """A run of a form has what its template says of its machine before it begins."""

    @pytest.fixture(autouse=True)
    def _template(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = {"t": {"resources": {"instance_type": "gpu.t4"}, "max_minutes": 2}}
        monkeypatch.setattr(training_templates, "parameters", kept.__getitem__)

    def test_one_of_a_form(self) -> None:
        form = {"template": "t", "resources": {"instance_type": "", "nodes": 2}}
        found = placement.plan("train", form, checked=False)

        assert (found.shape, found.nodes, found.seconds) == (_type("gpu.t4"), 2, 120)

    def test_a_tunings_template_is_its_trials(self) -> None:
        form = {"template": "t", "dispatch": "inline", "max_minutes": 9}
        found = placement.plan("tune", form, checked=False)

        assert (found.shape, found.seconds) == (_type("gpu.t4"), 540)

    def test_what_was_checked_has_it_already(self) -> None:
        assert placement.plan("train", {"template": "t"}) == SMALL


class TestTune:
    @pytest.mark.parametrize("dispatch", ["auto", "pool"])
    def test_one_whose_trials_have_pods_is_small(self, dispatch: str) -> None:
        given = {
            "resources": ALL, "dispatch": dispatch, "parallel_trials": 8, "max_minutes": 60,
            "trial_max_minutes": 5, "datasets": [{"name": "d", "uri": "nas://data:/d"}],
        }  # fmt: skip

        assert placement.plan("tune", given) == Placement(
            SMALL.shape, mounts=("data", "shared", "team"), seconds=3600
        )

    def test_else_its_pod_holds_all_trials_that_go_on_at_once(self) -> None:
        given = {"resources": ALL, "dispatch": "inline", "parallel_trials": 4}
        found = placement.plan("tune", given)
        each = _type("gpu.a100")

        assert found.nodes == 1
        assert found.shape.gpus == 3 * 4
        assert found.shape.cpu == each.cpu * 12
        assert found.shape.memory_gib == each.memory_gib * 12
        assert found.shape.dev_shm_gib == each.dev_shm_gib * 12
        assert found.shape.node_selector == each.node_selector
        assert (found.image, found.allow_cpu, found.seconds) == ("registry/mine:1", True, None)

    def test_trials_that_share_gpus_need_no_more_of_them(self) -> None:
        resources = {"instance_type": "gpu.a100", "share_gpus": True}
        given = {"resources": resources, "dispatch": "inline", "parallel_trials": 4}

        assert placement.plan("tune", given).shape.gpus == 1


def test_a_pipelines_components_have_pods_of_their_own() -> None:
    given = {
        "pipeline": "p:1",
        "resources": {"instance_type": "gpu.h100x8", "nodes": 4},
        "mounts": [{"name": "d", "uri": "nas://data:/d"}],
    }

    assert placement.plan("pipeline-run", given) == replace(PIPELINE, mounts=("*", "data"))


def test_any_other_flow_is_small() -> None:
    assert placement.plan("pipeline-artifacts-cleanup", {"days": 1}) == SMALL
    assert placement.plan("somebody-elses", {"resources": 7, "max_minutes": "long"}) == SMALL


def test_any_other_flow_has_its_network_folders_and_its_time_limit() -> None:
    given = {"input_uri": "nas://data:/d", "rows": [{"uri": "nas://team:/t"}], "max_minutes": 5}

    assert placement.plan("somebody-elses", given) == replace(
        SMALL, mounts=("data", "team"), seconds=300
    )


class TestAsked:
    def test_a_training(self) -> None:
        (found,) = placement.plan_requests("train", {"resources": {"instance_type": "gpu.t4"}})

        assert (found.flow, found.type_name) == ("train", "gpu.t4")
        assert found.placement.shape == _type("gpu.t4")

    def test_a_tuning_and_its_trials(self) -> None:
        own, trial = placement.plan_requests("tune", {"resources": ALL, "trial_max_minutes": 1})

        assert (own.flow, own.placement.shape) == ("tune", SMALL.shape)
        assert (trial.flow, trial.type_name) == ("train", "gpu.a100")
        assert (trial.placement.gpus, trial.placement.seconds) == (3, 60)

    def test_a_tuning_with_its_trials_in_it(self) -> None:
        given = {"resources": ALL, "dispatch": "inline", "parallel_trials": 2}
        (own,) = placement.plan_requests("tune", given)

        assert own.placement.shape.gpus == 6
        assert own.type_name == "2 parallel trials of gpu.a100"

    def test_a_pipeline(self) -> None:
        (own,) = placement.plan_requests("pipeline-run", {"pipeline": "p:1"})

        assert (own.flow, own.placement) == ("pipeline-run", PIPELINE)


class TestRefusal:
    NODE = NodeCapacity(
        allocatable={"cpu": 96, "memory": 900 * GIB, "ephemeral-storage": 999 * GIB}
    )

    def _request(self, **resources: Any) -> placement.PlacementRequest:
        (found,) = placement.plan_requests("train", {"resources": resources})
        return found

    def test_the_numbers_are_told(self) -> None:
        there = Capacity(quotas=(Quota(name="q", hard={"requests.nvidia.com/gpu": 2}, used={}),))
        with pytest.raises(ClusterError, match=r"3 nvidia\.com/gpu.*allows 2") as caught:
            placement.fit_to_capacity(self._request(instance_type="gpu.a100", nodes=3), there)

        assert caught.value.code == "QuotaExceeded"

    def test_one_that_may_go_without_gpus_is_let_through_where_there_are_none(self) -> None:
        there = Capacity(nodes=(self.NODE,), labels=(capacity.PRODUCT,))
        with pytest.raises(ClusterError) as caught:
            placement.fit_to_capacity(self._request(instance_type="gpu.t4"), there)
        assert caught.value.code == "NodesLackGpu"

        found = placement.fit_to_capacity(
            self._request(instance_type="gpu.t4", allow_cpu=True), there
        )

        assert found.shape.gpus == 0

    def test_unless_it_is_too_large_all_the_same(self) -> None:
        there = Capacity(nodes=(self.NODE,), labels=(capacity.PRODUCT,))
        request = self._request(instance_type="gpu.h200x8", allow_cpu=True)
        with pytest.raises(ClusterError) as caught:
            placement.fit_to_capacity(request, there)

        assert caught.value.code == "NodesTooSmall"
