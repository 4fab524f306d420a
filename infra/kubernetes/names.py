"""The names and labels of what Modelyard makes on a cluster.

A label's value may have 63 characters, of a small alphabet [1]. What people call their runs and
experiments is free, so a label holds a cleaned form of it and an annotation the whole.

[1] https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

import hashlib
import re

from infra.kubernetes.wanted import Wanted

MANAGED_BY = "app.kubernetes.io/managed-by"
MODELYARD = "modelyard"
FLOW_RUN = "modelyard/flow-run"
ATTEMPT = "modelyard/attempt"
FLOW = "modelyard/flow"
POOL = "modelyard/pool"
EXPERIMENT = "modelyard/experiment"
SCHEDULE = "modelyard/schedule"
SLOT = "modelyard/slot"
PART = "modelyard/part"
RUN = "modelyard/run"

OURS = {MANAGED_BY: MODELYARD}

_LONGEST_VALUE = 63
_DIGEST = 8
_VALID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
# All annotations of an object may have 256 KiB together; there are three of ours.
_LONGEST_ANNOTATION = 64 * 1024


def cleaned(value: str) -> str:
    """What stands for ``value`` in a label.

    A value that is allowed stands for itself, and an empty one stays empty. Any other loses what
    is not allowed and gets a digest of the whole instead, so that two names never share a label.
    """
    if not value or _VALID.fullmatch(value):
        return value
    digest = hashlib.sha256(value.encode(errors="backslashreplace")).hexdigest()[:_DIGEST]
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", value)[: _LONGEST_VALUE - _DIGEST - 1].strip("._-")
    return f"{kept}-{digest}" if kept else digest


def job(flow_run_id: str, attempt: int) -> str:
    """The name of an attempt's Job, and of its Service if it has several nodes.

    A flow run's id has 36 characters: room is left for what an Indexed Job adds for the names of
    its pods' hosts, which may have 63 as well.
    """
    return f"my-{flow_run_id}-{attempt}"


def labels(wanted: Wanted) -> dict[str, str]:
    """The labels of everything that belongs to an attempt of a run; none of them is empty."""
    values = {
        FLOW_RUN: wanted.flow_run_id,
        ATTEMPT: str(wanted.attempt),
        FLOW: wanted.flow,
        POOL: wanted.pool,
        EXPERIMENT: wanted.experiment,
        SCHEDULE: wanted.schedule,
        SLOT: wanted.slot,
        PART: wanted.part,
    }
    return OURS | {label: cleaned(value) for label, value in values.items() if value}


def selector(wanted: Wanted) -> dict[str, str]:
    """The labels that single out the pods of an attempt."""
    return {FLOW_RUN: wanted.flow_run_id, ATTEMPT: str(wanted.attempt), PART: wanted.part}


def whole_names(wanted: Wanted) -> dict[str, str]:
    """What people call the run, its experiment and its slot, whole."""
    values = {RUN: wanted.run_name, EXPERIMENT: wanted.experiment, SLOT: wanted.slot}
    return {name: _whole(value) for name, value in values.items() if value}


def _whole(value: str) -> str:
    """The value in UTF-8's terms, and whole unless it is absurdly long."""
    cut = value.encode(errors="replace")[:_LONGEST_ANNOTATION]
    return cut.decode(errors="ignore")
