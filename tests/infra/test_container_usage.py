"""What a container uses, from the files of its cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import container_usage
from infra.container_usage import Container
from infra.process_usage import TreeUsage

_FILES = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
    "cpu.max": "150000 100000\n",
    "memory.current": "9000\n",
    "memory.max": "20000\n",
    "memory.stat": "anon 5000\ninactive_file 3000\nactive_file 1000\n",
    "io.stat": "8:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n",
}


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    for name, text in _FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_it_is_the_working_set_and_all_disks(cgroup: Path) -> None:
    container = container_usage.find(cgroup)

    assert container == Container(cgroup)
    assert container.usage() == TreeUsage(2.5, 6000, 101, 22)
    assert (container.cores(), container.memory_bytes()) == (1.5, 20000)


def test_one_without_limits_and_without_accounting_of_disks(cgroup: Path) -> None:
    (cgroup / "cpu.max").write_text("max 100000\n")
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "io.stat").unlink()
    container = Container(cgroup)

    assert (container.cores(), container.memory_bytes()) == (None, None)
    assert (container.usage().read_bytes, container.usage().written_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("name", "text"), [("memory.current", None), ("cpu.stat", "nr_periods 1\n"), ("cpu.max", "?")]
)
def test_another_cgroup_is_none(cgroup: Path, name: str, text: str | None) -> None:
    (cgroup / name).unlink() if text is None else (cgroup / name).write_text(text)

    assert container_usage.find(cgroup) is None
