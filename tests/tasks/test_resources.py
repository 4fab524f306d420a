from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from infra.errors import ModelyardError
from infra.home import Home
from infra.settings import Settings
from tasks import resources
from tasks.resources import Resources


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"nodes": 2, "processes_per_node": 2, "torchrun": True},
        {"instance_type": "gpu.t4", "nodes": 2},
        {"instance_type": "gpu.a100x8", "allow_cpu": True},
        {"data_storage_gib": 0.001},
    ],
)
def test_what_this_machine_has(asked: dict[str, Any], home: Home) -> None:
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
    ],
)
def test_what_it_has_not(asked: dict[str, Any], entry_point: str, code: str, home: Home) -> None:
    with pytest.raises(ModelyardError) as raised:
        resources.check(Resources(**asked), entry_point, home, Settings(gpus="0,1"))

    assert raised.value.code == code


@pytest.mark.parametrize(
    "asked",
    [
        {"nodes": 0}, {"nodes": 257}, {"processes_per_node": 0}, {"data_storage_gib": -1},
        {"nodes": 1.5}, {"gpus": 1},
    ],
)  # fmt: skip
def test_what_nobody_has(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Resources(**asked)
