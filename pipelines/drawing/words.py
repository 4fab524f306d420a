"""Words for kinds, states, counts and boxes of a graph."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines import naming
from pipelines.drawing import model, text
from pipelines.drawing.model import Box
from pipelines.drawing.style import STATES

KINDS = {
    model.PIPELINE: "Pipeline",
    model.TASK: "Task",
    model.IMPORTER: "Importer",
    model.EXIT: "Exit handler",
    model.DAG: "Group",
    model.CONDITION: "Condition",
    model.LOOP: "Loop",
    model.ITERATION: "Iteration",
    model.MORE: "More iterations",
}


def labels(group: Box) -> dict[str, str]:
    """Build unique labels of a group's boxes, by path."""
    keys = {child.path.rpartition("/")[2]: child for child in group.children}
    named = naming.make_unique({key: child.name for key, child in keys.items()})
    return {child.path: named[key] for key, child in keys.items()}


def state(known: str) -> str:
    """Display name of a state."""
    return STATES[known].word if known in STATES else known.capitalize()


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts by state, such as ``94 succeeded, 2 failed``."""
    known = [one for one in STATES if one in counts]
    others = sorted(set(counts) - set(known))
    return ", ".join(f"{counts[one]} {state(one).lower()}" for one in (*known, *others))


def format_note(box: Box) -> str:
    """Second line of a group's head."""
    parts = [box.note] if box.note else []
    if box.counts:
        total = sum(box.counts.values())
        parts.append(f"{total} iterations: {format_counts(box.counts)}")
    if box.hidden and box.kind != model.MORE:
        parts.append(f"{box.hidden} within, not shown")
    return " · ".join(parts)


def describe_box(box: Box, now: float) -> str:
    """Describe a box in one line, for screen readers and tooltips."""
    named = f"{box.name} ({box.key})" if box.key else box.name
    parts = f"{named}, {KINDS[box.kind].lower()}"
    if box.state:
        parts += f": {state(box.state).lower()}"
        seconds = box.seconds(now)
        parts += "" if seconds is None else f", {text.duration(seconds)}"
    more = [format_note(box) if box.group else box.runs, box.reason]
    return ". ".join([parts, *(one for one in more if one)])
