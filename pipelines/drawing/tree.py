"""Text renderer of a graph: nesting, states and dependencies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from pipelines.drawing import text, words
from pipelines.drawing.model import MORE, Box
from pipelines.drawing.style import STATES

_LONGEST_REASON = 100


def lines(root: Box, now: float) -> Iterator[str]:
    """Render a graph as lines for a terminal.

    Args:
        root: The graph.
        now: Seconds since 1970, for how long it has run what runs.
    """
    yield _said(root, now, ())
    yield from _below(root, "", now)


def _below(group: Box, indent: str, now: float) -> Iterator[str]:
    calls = words.labels(group)
    before: defaultdict[str, list[str]] = defaultdict(list)
    for edge in group.edges:
        before[edge.target].append(calls[edge.source])
    for at, child in enumerate(group.children):
        last = at == len(group.children) - 1
        branch, further = ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield f"{indent}{branch}{_said(child, now, before[child.path])}"
        yield from _below(child, indent + further, now)


def _said(box: Box, now: float, before: Sequence[str]) -> str:
    parts = [f"{box.name} ({box.key})" if box.key else box.name]
    if box.state:
        symbol = STATES[box.state].symbol if box.state in STATES else ""
        parts.append(f"{symbol} {box.state}")
        seconds = box.seconds(now)
        parts += [] if seconds is None else [text.duration(seconds)]
        parts += [f"attempt {box.attempt}"] if box.attempt > 1 else []
    elif box.kind == MORE:
        parts.append(words.format_counts(box.counts))
    elif not box.group:
        parts.append(box.runs)
    if box.group and box.path:
        parts.append(words.format_note(box))
    if before:
        parts.append(f"← {', '.join(before)}")
    if box.reason and not box.group:
        cut = box.reason[:_LONGEST_REASON]
        parts.append(f"({cut}{'…' if cut != box.reason else ''})")
    return "  ".join(text.plain(one) for one in parts if one)
