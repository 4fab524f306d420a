from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra import site
from infra.errors import BadInputError, ModelyardError
from infra.home import Home
from infra.settings import Settings
from tasks import resources
from tasks.resources import Resources


@pytest.fixture
def nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NAS that is mounted, and one that is not."""
    known = {"team": str(tmp_path), "gone": str(tmp_path / "gone")}
    monkeypatch.setenv("MODELYARD_NAS", json.dumps(known))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"nodes": 2, "processes_per_node": 2, "torchrun": True},
        {"instance_type": "gpu.t4", "nodes": 2},
        {"instance_type": "gpu.a100x8", "allow_cpu": True},
        {"data_storage_gib": 0.001},
        {"boot_storage_gib": 0.001},
        {"mounts": ["nas://team", "team", "nas://team:/", "NAS://team:"]},
    ],
)
def test_what_this_machine_has(asked: dict[str, Any], home: Home, nas: None) -> None:
    resources.check(Resources(**asked), "train.py", home, Settings(gpus="0,1"))


@pytest.mark.parametrize(
    ("asked", "entry_point", "code"),
    [
        ({"instance_type": "gpu.moon"}, "train.py", "InstanceTypeUnknown"),
        ({"instance_type": "gpu.a100x8"}, "train.py", "GpuMissing"),
        ({"instance_type": "gpu.t4", "nodes": 3}, "train.py", "GpuMissing"),
        ({"torchrun": True}, "train.sh", "TorchrunNeedsPython"),
        ({"nodes": 200}, "train.py", "NodesTooMany"),
        ({"nodes": 8, "processes_per_node": 60}, "train.py", "NodesTooMany"),
        ({"data_storage_gib": 1e9}, "train.py", "DiskFull"),
        ({"boot_storage_gib": 1e9}, "train.py", "DiskFull"),
        ({"mounts": ["team", "nas://other"]}, "train.py", "NasUnknown"),
        ({"mounts": ["nas://gone"]}, "train.py", "NasNotMounted"),
        ({"mounts": ["nas://team:/folder"]}, "train.py", "MountInvalid"),
        ({"mounts": ["s3://team"]}, "train.py", "MountInvalid"),
        ({"mounts": [""]}, "train.py", "MountInvalid"),
    ],
)
def test_what_it_has_not(
    asked: dict[str, Any], entry_point: str, code: str, home: Home, nas: None
) -> None:
    with pytest.raises(ModelyardError) as raised:
        resources.check(Resources(**asked), entry_point, home, Settings(gpus="0,1"))

    assert raised.value.code == code


@pytest.mark.parametrize(
    "asked",
    [
        {"nodes": 0}, {"nodes": 257}, {"processes_per_node": 0}, {"data_storage_gib": -1},
        {"nodes": 1.5}, {"gpus": 1}, {"boot_storage_gib": -1}, {"mounts": ["a"] * 21},
    ],
)  # fmt: skip
def test_what_nobody_has(asked: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        Resources(**asked)


def test_both_kinds_of_storage_are_on_one_disk(home: Home) -> None:
    half = home.free_bytes() / 2**30 * 0.6
    both = Resources(boot_storage_gib=half, data_storage_gib=half)
    with pytest.raises(ModelyardError) as raised:
        resources.check(both, "train.py", home, Settings(gpus="none"))

    assert raised.value.code == "DiskFull"
    assert "resources.data_storage_gib and resources.boot_storage_gib" in str(raised.value)


class TestElsewhere:
    """What is for other machines is not judged by this one's."""

    @pytest.mark.parametrize(
        "asked",
        [
            {"instance_type": "gpu.h200x8", "nodes": 256, "processes_per_node": 64},
            {"data_storage_gib": 1e9, "boot_storage_gib": 1e9},
            {"mounts": ["nas://theirs"]},
        ],
        ids=str,
    )
    def test_what_others_may_have(self, asked: dict[str, Any], home: Home) -> None:
        with site.validating_for_remote():
            resources.check(Resources(**asked), "train.py", home, Settings(gpus="none"))
        with pytest.raises(ModelyardError):
            resources.check(Resources(**asked), "train.py", home, Settings(gpus="none"))

    @pytest.mark.parametrize(
        ("asked", "entry_point", "code"),
        [
            ({"instance_type": "gpu.moon"}, "train.py", "InstanceTypeUnknown"),
            ({"torchrun": True}, "train.sh", "TorchrunNeedsPython"),
            ({"mounts": ["s3://x"]}, "train.py", "MountInvalid"),
        ],
    )
    def test_what_no_machine_has(
        self, asked: dict[str, Any], entry_point: str, code: str, home: Home
    ) -> None:
        with pytest.raises(ModelyardError) as raised, site.validating_for_remote():
            resources.check(Resources(**asked), entry_point, home, Settings(gpus="none"))

        assert raised.value.code == code


class TestNodesApart:
    """In a pod of several, which is one node."""

    @pytest.fixture(autouse=True)
    def _pod(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MODELYARD_NODES", "200")

    def test_the_other_nodes_have_their_own_gpus_and_processors(self, home: Home) -> None:
        asked = Resources(instance_type="gpu.t4", nodes=200, processes_per_node=2)
        resources.check(asked, "train.py", home, Settings(gpus="0"))

        assert resources.gpu_count(asked, Settings()) == 1

    @pytest.mark.parametrize(
        ("asked", "code"),
        [
            ({"instance_type": "gpu.t4"}, "GpuMissing"),
            ({"processes_per_node": 64}, "NodesTooMany"),
        ],
        ids=str,
    )
    def test_its_own_have_to_do(
        self, asked: dict[str, Any], code: str, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        with pytest.raises(ModelyardError) as raised:
            resources.check(Resources(**asked, nodes=200), "train.py", home, Settings(gpus="none"))

        assert raised.value.code == code


def test_a_pods_room_was_given_by_the_cluster(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Resources(data_storage_gib=1e9, boot_storage_gib=1e9)
    with monkeypatch.context() as pod:
        pod.setenv("MODELYARD_POD_UID", "u")
        resources.check(asked, "train.py", home, Settings(gpus="none"))
    with pytest.raises(ModelyardError):
        resources.check(asked, "train.py", home, Settings(gpus="none"))
