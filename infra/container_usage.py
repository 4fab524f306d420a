"""Resource usage and limits of this process's container, from the files of its cgroup (v2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infra.process_usage import TreeUsage

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Container:
    """The cgroup of a container.

    Attributes:
        folder: Its files.
    """

    folder: Path

    def usage(self) -> TreeUsage:
        """Usage of all of its processes, without their ids.

        Memory is the working set, as the kubelet counts it: without the page cache that the kernel
        can drop at once, and with files in memory such as ``/dev/shm``.

        Raises:
            OSError: If a file cannot be read.
            ValueError: If it is of another form.
        """
        inactive = _pairs(self.folder / "memory.stat")["inactive_file"]
        return TreeUsage(
            cpu_seconds=_pairs(self.folder / "cpu.stat")["usage_usec"] / 1e6,
            memory_bytes=max(0, int((self.folder / "memory.current").read_text()) - inactive),
            read_bytes=self._disk("rbytes"),
            written_bytes=self._disk("wbytes"),
        )

    def _disk(self, key: str) -> int:
        file = self.folder / "io.stat"
        if not file.exists():
            return 0
        fields = (field.partition("=") for field in file.read_text().split())
        return sum(int(value) for name, _, value in fields if name == key)

    def cores(self) -> float | None:
        """Limit of its processor time in cores; None without one."""
        quota, period = (self.folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)

    def memory_bytes(self) -> int | None:
        """Limit of its memory; None without one."""
        limit = (self.folder / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit)


def find(root: Path = _ROOT) -> Container | None:
    """The container of this process; None where its cgroup does not count all of it, as in v1."""
    found = Container(root)
    try:
        found.usage(), found.cores(), found.memory_bytes()
    except (OSError, ValueError, KeyError):
        return None
    return found


def _pairs(file: Path) -> dict[str, int]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {name: int(value) for name, value in lines}
