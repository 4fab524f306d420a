"""What is staged for a workload: its inputs, the folders that it writes to, its outputs.

Its paths mean the same in its container as here. All of them lie in one volume, of which the
container has a part mounted for each of the plan's ``tops``; the containers that stage see the
volume whole, each top as a numbered entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from infra.workloads.base import Workload
from infra.workloads.paths import topmost

FILE = "plan.json"
_MOST_TOPS = 24
_LEAST_PARTS = 3  # the root, and two folders: /home itself must not be covered


@dataclass(frozen=True)
class StagingPlan:
    """What is staged for a workload. Paths are absolute, as in its command line.

    Attributes:
        tops: Paths to mount, none below another one.
        folders: Folders that it may write to.
        fetched: Inputs: paths with the URIs that they are fetched from.
        sent: Outputs, sent when it has succeeded: paths with the URIs that they go to.
        apart: Paths below those that are not sent with them.
    """

    tops: tuple[str, ...]
    folders: tuple[str, ...]
    fetched: tuple[tuple[str, str], ...] = ()
    sent: tuple[tuple[str, str], ...] = ()
    apart: tuple[str, ...] = ()

    def place(self, path: str, volume: Path) -> Path:
        """Path in the volume of a path of the workload."""
        for number, top in enumerate(self.tops):
            if PurePosixPath(path).is_relative_to(top):
                return volume / str(number) / PurePosixPath(path).relative_to(top)
        raise ValueError(f"{path} is not in the plan")

    def text(self) -> str:
        """The plan as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str | bytes) -> StagingPlan:
        """The plan that :meth:`text` has written."""
        found = json.loads(text)
        return cls(
            tuple(found["tops"]),
            tuple(found["folders"]),
            tuple((path, uri) for path, uri in found["fetched"]),
            tuple((path, uri) for path, uri in found["sent"]),
            tuple(found["apart"]),
        )


def plan(workload: Workload, uploaded: Mapping[Path, str], base: str) -> StagingPlan:
    """Plan the staging of a workload.

    Args:
        workload: The workload.
        uploaded: Inputs of this machine that were uploaded: their URIs by their paths.
        base: The URI below which everything is that is the workload's alone.
    """
    folders = list(
        dict.fromkeys(
            [
                workload.folder,
                *(path.parent for path in workload.outputs),
                *workload.sent,
                *([workload.sidecar.folder] if workload.sidecar else []),
            ]
        )
    )
    fetched = {**uploaded, **workload.fetched}
    return StagingPlan(
        tops=tops([*folders, *fetched]),
        folders=tuple(map(str, folders)),
        # What is above comes first: a folder that is fetched must not be there yet.
        fetched=tuple((str(path), fetched[path]) for path in sorted(fetched)),
        sent=(
            *((str(path), uri) for path, uri in workload.sent.items()),
            *(
                (str(path), f"{base}/out/{number}")
                for number, path in enumerate(returned(workload))
            ),
        ),
        apart=tuple(map(str, workload.outputs)) if workload.sent else (),
    )


def returned(workload: Workload) -> tuple[Path, ...]:
    """Paths to bring back to this machine: the folder, and outputs elsewhere."""
    outputs = (path for path in workload.outputs if not path.is_relative_to(workload.folder))
    return (workload.folder, *dict.fromkeys(outputs))


def tops(paths: Iterable[Path]) -> tuple[str, ...]:
    """The paths above all of ``paths``; the folders above them where these would be very many."""
    found = topmost(paths)
    while len(found) > _MOST_TOPS:
        deepest = max(len(path.parts) for path in found)
        if deepest <= _LEAST_PARTS:
            break
        found = topmost(path.parent if len(path.parts) == deepest else path for path in found)
    return tuple(map(str, found))
