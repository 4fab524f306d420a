from __future__ import annotations

from pathlib import Path

import pytest

from infra import instance_types
from infra.errors import BadInputError
from infra.instance_types import InstanceType
from infra.settings import Settings


def test_those_that_are_built_in() -> None:
    table = instance_types.load_all(Settings())

    assert table["cpu.small"].gpus == 0
    assert (table["gpu.t4"].gpus, table["gpu.a100"].gpus, table["gpu.a100x8"].gpus) == (1, 1, 8)
    assert table["gpu.h200"].node_selector
    assert all(shape.gpus for name, shape in table.items() if name.startswith("gpu."))


def test_shared_memory_is_a_quarter_unless_told() -> None:
    told = {"cpu": 1, "memory_gib": 8}

    assert InstanceType.model_validate(told).dev_shm_gib == 2
    assert InstanceType.model_validate({**told, "shared_memory_gib": 3}).dev_shm_gib == 3
    assert InstanceType.model_validate({**told, "shared_memory_gib": 0}).dev_shm_gib == 0


def test_the_default() -> None:
    settings = Settings()

    assert instance_types.find("", settings) == instance_types.find("cpu.small", settings)


def test_more_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_text(
        "gpu.mine: {cpu: 8, memory_gib: 64, gpus: 2}\ncpu.small: {cpu: 1, memory_gib: 1}"
    )
    settings = Settings(instance_types=file)

    assert instance_types.find("gpu.mine", settings).gpus == 2
    assert instance_types.find("", settings).cpu == 1
    assert instance_types.find("gpu.t4", settings).gpus == 1


def test_more_from_a_variable(tmp_path: Path) -> None:
    told = '{"cpu.small": {"cpu": 1, "memory_gib": 2}, "gpu.mine": {"cpu": 8, "memory_gib": 64}}'
    file = tmp_path / "types.yaml"
    file.write_text("gpu.mine: {cpu: 4, memory_gib: 32, gpus: 1}")
    table = instance_types.load_all(Settings(instance_types_settings=told, instance_types=file))

    assert table["cpu.small"].memory_gib == 2
    assert table["gpu.mine"].gpus == 1


def test_a_variable_that_is_none() -> None:
    with pytest.raises(BadInputError, match="MODELYARD_INSTANCE_TYPES_SETTINGS") as raised:
        instance_types.load_all(Settings(instance_types_settings='{"a": {"cpu": 0}}'))

    assert raised.value.code == "InstanceTypesInvalid"


def test_an_unknown_one() -> None:
    with pytest.raises(BadInputError, match=r"no instance type 'gpu\.moon'") as raised:
        instance_types.find("gpu.moon", Settings())

    assert raised.value.code == "InstanceTypeUnknown"
    assert "gpu.t4" in raised.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "a: 1",
        "a: {cpu: 0, memory_gib: 1}",
        "a: {cpu: 1, memory_gib: 1, gpu: 1}",
        "a: {",
        "\0",
        "a: 2026-99-99",
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "types.yaml"
    file.write_text(text)

    with pytest.raises(BadInputError) as raised:
        instance_types.load_all(Settings(instance_types=file))

    assert raised.value.code == "InstanceTypesInvalid"
    assert str(file) in raised.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        instance_types.load_all(Settings(instance_types=tmp_path / "none"))
