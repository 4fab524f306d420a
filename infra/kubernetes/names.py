"""Names and labels of Modelyard's objects on a cluster.

A label's value may have 63 characters, of a small alphabet [1]. Names of runs and experiments
are free text, so a label holds a sanitized form and an annotation the whole.

[1] https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

import hashlib
import re

from infra.kubernetes.attempt_spec import AttemptSpec

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


def label_value(value: str) -> str:
    """Convert a string to a valid label value.

    A valid value stays as it is. Any other loses its invalid characters and gets a digest of the
    whole, so that two strings never share a label value.
    """
    if not value or _VALID.fullmatch(value):
        return value
    digest = hashlib.sha256(value.encode(errors="backslashreplace")).hexdigest()[:_DIGEST]
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", value)[: _LONGEST_VALUE - _DIGEST - 1].strip("._-")
    return f"{kept}-{digest}" if kept else digest


def job_name(flow_run_id: str, attempt: int) -> str:
    """Build the name of an attempt's Job, and of its Service if it has several nodes.

    A flow run's id has 36 characters: room is left for what an Indexed Job adds for the names of
    its pods' hosts, which may have 63 as well.
    """
    return f"my-{flow_run_id}-{attempt}"


def labels(wanted: AttemptSpec) -> dict[str, str]:
    """Build the labels of all objects of an attempt, without empty ones."""
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
    return OURS | {label: label_value(value) for label, value in values.items() if value}


def selector(wanted: AttemptSpec) -> dict[str, str]:
    """Build the label selector of an attempt's pods."""
    return {FLOW_RUN: wanted.flow_run_id, ATTEMPT: str(wanted.attempt), PART: wanted.part}


def build_annotations(wanted: AttemptSpec) -> dict[str, str]:
    """Build annotations with the whole names of the run, its experiment and its slot."""
    values = {RUN: wanted.run_name, EXPERIMENT: wanted.experiment, SLOT: wanted.slot}
    return {name: _whole(value) for name, value in values.items() if value}


def _whole(value: str) -> str:
    """Make a string valid UTF-8, and cut it if it is absurdly long."""
    cut = value.encode(errors="replace")[:_LONGEST_ANNOTATION]
    return cut.decode(errors="ignore")
