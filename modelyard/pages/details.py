"""Details of one node beside the graph, for the page's template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import yaml

from pipelines.drawing import building, model, text, words
from pipelines.drawing.model import Box, NodeRow

_LONGEST = 2000
_LONGEST_YAML = 10 * _LONGEST  # letters of JSON; what is longer takes long to be written as YAML
_NOTES = {model.PIPELINE: "About", model.CONDITION: "Condition", model.LOOP: "Loop"}
MOST_LISTED = 300  # of a loop's iterations


class FullRow(NodeRow, Protocol):
    """A node's row with its inputs and outputs."""

    @property
    def inputs(self) -> dict[str, Any]:
        """Its inputs."""

    @property
    def outputs(self) -> dict[str, Any]:
        """Its outputs."""


@dataclass(frozen=True)
class Value:
    """An input or an output.

    Attributes:
        name: Its name.
        text: Its value, or an artifact's URI.
        about: Its source, or its type.
        artifact: Whether it is an artifact.
        link: URL of its download; empty without one.
        metadata: An artifact's metadata.
    """

    name: str
    text: str = ""
    about: str = ""
    artifact: bool = False
    link: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Details:
    """Details of one node.

    Attributes:
        path: Its path.
        name: Its name.
        kind: Its kind, in a word.
        state: Its state; empty without a run.
        word: Its state for people.
        reason: Why it failed or was skipped.
        facts: Further lines: label and text.
        began: When it started.
        ended: When it ended.
        seconds: Its duration so far; empty before its start.
        inputs: Its inputs.
        outputs: Its outputs.
        iterations: A loop's iterations: path, name and state.
        unlisted: How many more iterations it has.
        links: Further pages: label and URL.
    """

    path: str
    name: str
    kind: str
    state: str
    word: str
    reason: str
    facts: list[tuple[str, str]]
    began: datetime | None
    ended: datetime | None
    seconds: str
    inputs: list[Value]
    outputs: list[Value]
    iterations: list[tuple[str, str, str]] = field(default_factory=list)
    unlisted: int = 0
    links: list[tuple[str, str]] = field(default_factory=list)


# From an output's name, a number and a URI to the URL of the download; empty without one.
Download = Callable[[str, int, str], str]


def of(box: Box, row: FullRow | None, now: float, download: Download = lambda *_: "") -> Details:
    """Return the details of a box.

    Args:
        box: The box.
        row: Its row in a run.
        now: Seconds since 1970.
        download: Returns the link of an artifact.
    """
    seconds = box.seconds(now)
    return Details(
        path=box.path,
        name=box.name,
        kind=words.KINDS[box.kind],
        state=box.state,
        word=words.state(box.state) if box.state else "",
        reason=box.reason,
        facts=_facts(box),
        began=_instant(box.began),
        ended=_instant(box.ended),
        seconds="" if seconds is None else text.duration(seconds),
        inputs=_values(box.inputs, row.inputs if row else {}, lambda *_: ""),
        outputs=_values(box.outputs, row.outputs if row else {}, download),
    )


def _facts(box: Box) -> list[tuple[str, str]]:
    runs = "Imports" if box.kind == model.IMPORTER else "Image"
    lines = [
        (_NOTES.get(box.kind, "Note"), words.format_note(box)),
        ("Attempt", str(box.attempt) if box.attempt > 1 else ""),
        ("Component", box.component if box.kind != model.PIPELINE else ""),
        (runs, box.runs),
        ("Packages", ", ".join(box.requirements)),
    ]
    return [(name, value) for name, value in lines if value]


def _instant(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0) if seconds else None


def _values(
    declared: Mapping[str, str], known: Mapping[str, Any], download: Download
) -> list[Value]:
    """Return values with their declarations, including declared ones without a value."""
    parameters, artifacts = known.get("parameters", {}), known.get("artifacts", {})
    about = {text.channel(name): one for name, one in declared.items()}
    found = []
    for name, value in parameters.items():
        declaration = about.get(text.channel(name), "")
        constant = declaration == json.dumps(value, ensure_ascii=False)  # shown as the value
        source = "" if constant else declaration
        found.append(Value(text.plain(text.channel(name)), shown(value), source))
    for name, value in artifacts.items():
        for number, one in enumerate(value if isinstance(value, list) else [value]):
            found.append(_artifact(name, number, one, isinstance(value, list), download))
    met = {text.plain(text.channel(name)) for name in (*parameters, *artifacts)}
    found += [Value(name, "", one) for name, one in about.items() if name not in met]
    return sorted(found, key=lambda value: value.name)


def _artifact(
    name: str, number: int, one: Mapping[str, Any], listed: bool, download: Download
) -> Value:
    named = text.plain(text.channel(name))
    return Value(
        f"{named}[{number}]" if listed else named,
        text.plain(str(one.get("uri", ""))),
        text.plain(str(one.get("schema", ""))),
        artifact=True,
        link=download(name, number, str(one.get("uri", ""))),
        metadata={text.plain(key): shown(held) for key, held in one.get("metadata", {}).items()},
    )


def shown(value: Any) -> str:
    """Return a value for display: strings as they are, all else as JSON."""
    rendered = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    return _cut(rendered)


def written(value: Any) -> str:
    """Return a parameter for display, as people write it in a file: lists and mappings as YAML."""
    if not isinstance(value, list | dict) or len(json.dumps(value)) > _LONGEST_YAML:
        return shown(value)
    dumped = yaml.safe_dump(
        value, default_flow_style=None, sort_keys=False, allow_unicode=True, width=_LONGEST
    )
    return _cut(dumped.rstrip("\n"))


def _cut(rendered: str) -> str:
    cut = f"{rendered[:_LONGEST]}… ({len(rendered)} letters)"
    return rendered if len(rendered) <= _LONGEST else cut


def iterations(rows: Iterable[NodeRow], loop: str, *, over: bool) -> list[tuple[str, str, str]]:
    """Return the iterations of a loop in order: path, name and state."""
    found = []
    for row in rows:
        around, _, number = row.path.rpartition("/")
        if row.kind == model.ITERATION and around == loop and number.isdecimal():
            found.append((int(number), row))
    found.sort(key=lambda one: one[0])
    return [
        (row.path, f"[{number}]", building.node_state(row, over=over)) for number, row in found
    ]
