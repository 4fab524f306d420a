"""Staging containers of a pod, in Modelyard's image.

``python -P -m infra.workloads.kubernetes.stage in BASE`` fetches the inputs, and
``... out BASE`` sends the outputs; BASE is the URI with the job's plan. Credentials of
the storage come with the environment, which the component does not have.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from infra.errors import BadInputError, ModelyardError
from infra.storage import store
from infra.workloads.kubernetes.staging_plan import FILE, StagingPlan
from infra.workloads.sending import send

VOLUME = "/modelyard/stage"
UNREADABLE = "OutputUnreadable"
_SCRATCH = "sending"
_FAILED = 3
_OPEN = 0o2777


def bring(plan: StagingPlan, volume: Path) -> None:
    """Make the folders that a job writes to, and fetch what it reads."""
    for path, uri in plan.fetched:
        place = plan.place(path, volume)
        if place.exists():  # it came with a folder above it
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        store(uri).fetch(place)
        let_read(place)
    for path in plan.folders:
        place = plan.place(path, volume)
        place.mkdir(parents=True, exist_ok=True)
        _let_write(place, volume)


def send_on(plan: StagingPlan, volume: Path) -> None:
    """Send what a job has written; where it has written nothing, nothing is sent."""
    scratch = volume / _SCRATCH
    apart = {plan.place(path, volume) for path in plan.apart}
    for path, uri in plan.sent:
        place = plan.place(path, volume)
        _check_readable(path, place)
        if place.is_dir() and any(one.is_relative_to(place) for one in apart):
            for entry in sorted(place.iterdir()):
                if entry not in apart:
                    send(store(f"{uri}/{entry.name}"), entry, scratch)
        elif place.is_file() or (place.is_dir() and any(place.iterdir())):
            send(store(uri), place, scratch)


def _check_readable(path: str, place: Path) -> None:
    """Refuse what the component has made its owner's alone, where that is another user."""
    for one in (place, *place.rglob("*")) if place.is_dir() else (place,):
        if not one.is_symlink() and one.exists() and not os.access(one, os.R_OK):
            owner = one.stat().st_uid
            shown = f"{path}/{one.relative_to(place)}" if one != place else path
            raise BadInputError(
                f"Only the user {owner} may read {shown}, and files are sent on by the user "
                f"{os.geteuid()}.",
                "Let the component be that user (set_security_context(run_as_user=...), or "
                "component_user of the cluster's file), or let it make its files readable.",
                code=UNREADABLE,
            )


def let_read(place: Path) -> None:
    """Let every user read it: the image's user is unknown."""
    for one in (place, *place.rglob("*")) if place.is_dir() else (place,):
        if not one.is_symlink():
            one.chmod(one.stat().st_mode | (0o555 if one.is_dir() else 0o444))


def _let_write(place: Path, volume: Path) -> None:
    """Let every user write there, as in a volume; what is written has the volume's group."""
    while place != volume:
        if place.stat().st_uid == os.geteuid():  # what is mounted from above is another's
            place.chmod(_OPEN)
        place = place.parent


_STEPS: dict[str, Callable[[StagingPlan, Path], None]] = {"in": bring, "out": send_on}


def main(step: str, base: str, volume: Path = Path(VOLUME)) -> int:
    """Do one of both; the exit status. Why it failed is the last line of the log."""
    try:
        _STEPS[step](StagingPlan.parse(store(f"{base}/plan").read(FILE)), volume)
    except ModelyardError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return _FAILED
    except OSError as error:
        print(f"Disk: {error}", file=sys.stderr)
        return _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
