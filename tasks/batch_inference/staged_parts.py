"""Results of parts on their way from pods to the run, through the staging storage.

Below the run's own URI there::

    inference/plan/plan.json                   the plan, which a retry continues
    inference/parts/00000007/TRY/              the files of a part, the summary last

Each try of a part has a folder of its own: a pod that was lost, and still runs, writes into none
of another's. The first try in the order of their names whose summary is there counts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from infra.errors import NotFoundError
from infra.storage import store
from infra.workloads.kubernetes.staging import StagingArea
from tasks.batch_inference import planning
from tasks.batch_inference.part_results import PartFiles
from tasks.batch_inference.planning import Plan

_PLAN = "plan.json"


def area(staging: str, flow_run_id: str) -> str:
    """The URI below which a run's plan and results are staged.

    Args:
        staging: The URI of the staging storage.
        flow_run_id: The run.
    """
    return f"{StagingArea(staging, flow_run_id).uri}/inference"


def publish_plan(plan: Plan, uri: str) -> None:
    """Keep a plan for later attempts.

    Args:
        plan: The plan.
        uri: The run's area.

    Raises:
        ModelyardError: If it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        planning.write(plan, Path(folder, _PLAN))
        store(f"{uri}/plan").publish(Path(folder))


def read_plan(uri: str) -> Plan | None:
    """The plan that an earlier attempt kept in the run's area; None if there is none.

    Raises:
        ModelyardError: If it cannot be read.
    """
    try:
        return planning.parse(store(f"{uri}/plan").read(_PLAN))
    except NotFoundError:
        return None


class StagedParts:
    """Results of a run's parts in its area. Several threads may use it."""

    def __init__(self, uri: str) -> None:
        """Use the area ``uri``."""
        self._uri = f"{uri}/parts"

    def done(self) -> Mapping[int, str]:
        """The URIs of the parts that are whole, by their numbers.

        Raises:
            ModelyardError: If they cannot be listed.
        """
        found: dict[int, str] = {}
        try:
            for entry in store(self._uri).entries():
                part, _, rest = entry.name.partition("/")
                attempt, _, name = rest.partition("/")
                if name == f"{part}.json":
                    found.setdefault(int(part), f"{self._uri}/{part}/{attempt}")
        except NotFoundError:
            pass
        return found

    def publish(self, files: PartFiles, attempt: str) -> None:
        """Send a part that is predicted, its summary last; its local files are gone then.

        Args:
            files: The part's files.
            attempt: Distinguishes this try of the part from all others.

        Raises:
            ModelyardError: If it cannot be sent.
        """
        there = store(f"{self._uri}/{files.number:08}/{attempt}")
        for some in ((files.results, files.errors), (files.summary,)):
            with tempfile.TemporaryDirectory(dir=files.folder) as folder:
                for file in some:
                    file.replace(Path(folder, file.name))
                there.publish(Path(folder))

    def read_summary(self, uri: str, files: PartFiles) -> None:
        """Read the summary of a part that is whole at ``uri``; see :meth:`done`.

        Raises:
            ModelyardError: If it cannot be read.
        """
        files.summary.write_bytes(store(uri).read(files.summary.name))

    def fetch(self, uri: str, files: PartFiles) -> None:
        """Fetch the files of a part that is whole at ``uri``; see :meth:`done`.

        Raises:
            ModelyardError: If they cannot be read, or do not fit.
        """
        folder = files.folder / f"{files.number:08}.fetched"
        shutil.rmtree(folder, ignore_errors=True)
        store(uri).fetch(folder)
        for file in (files.results, files.errors, files.summary):
            (folder / file.name).replace(file)
        folder.rmdir()
