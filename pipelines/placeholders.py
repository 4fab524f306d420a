"""Placeholders: ``{{$...}}`` in commands and constants, and ``Concat`` and ``IfPresent``.

Each text is read once, from its beginning to its end, and what a placeholder stands for is put
in as it is: a value that looks like a placeholder stays what the user has written.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.errors import BadInputError
from pipelines import values
from pipelines.artifacts import Artifact

_MOST_LEVELS = 50
_MOST_ESCAPES = 5

_PLACEHOLDER = re.compile(r"\{\{\$(\.[^\n{}]+)?\}\}")
_NAME = r"\[(?P<quote>''|'|\")(?P<name>[^'\"\]]+)(?P=quote)\]"
_ESCAPE = re.compile(r"\.json_escape\[(\d{1,3})\]$")
_PARAMETER = re.compile(rf"(?P<side>inputs|outputs)\.parameters{_NAME}(?P<output>\.output_file)?")
_ARTIFACT = re.compile(
    rf"(?P<side>inputs|outputs)\.artifacts{_NAME}(?:(?:\.artifacts)?\[(?P<index>\d{{1,6}})\])?"
    r"(?:\.(?P<field>uri|path|name|metadata(?:\[(?P<mark>''|'|\")(?P<key>[^'\"\]]+)(?P=mark)\])?))?"
)
_OUTPUT_FILE = frozenset({"outputs.output_file", "outputMetadataUri"})
_FIRST = re.compile(r"\.(\w+)")
_ROOTS = frozenset({"inputs", "outputs", "outputMetadataUri", "workspace_path"})
_STRUCTURE = re.compile(r'\s*\{\s*"(?:Concat|IfPresent)"\s*:')

# Where an address is mounted in a container, as the SDK's artifacts have it.
_MOUNTS = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}


@dataclass(frozen=True)
class PlaceholderFacts:
    """Facts about a run and a task that placeholders refer to; None has no value.

    Attributes:
        job_name: The run's name, as people gave it.
        job_resource_name: Its name in the system; it begins with the pipeline's name.
        job_id: Its identity.
        created: When it was made, in UTC, as ISO 8601.
        scheduled: When it was due, likewise.
        root: The folder of its artifacts.
        workspace: The folder that its tasks share.
        task_name: The task's name.
        task_id: The task's identity.
    """

    job_name: str | None = None
    job_resource_name: str | None = None
    job_id: str | None = None
    created: str | None = None
    scheduled: str | None = None
    root: str | None = None
    workspace: str | None = None
    task_name: str | None = None
    task_id: str | None = None


_FACTS: Mapping[str, Callable[[PlaceholderFacts], str | None]] = {
    "pipeline_job_name": lambda facts: facts.job_name,
    "pipeline_job_resource_name": lambda facts: facts.job_resource_name,
    "pipeline_job_uuid": lambda facts: facts.job_id,
    "pipeline_job_create_time_utc": lambda facts: facts.created,
    "pipeline_job_schedule_time_utc": lambda facts: facts.scheduled,
    "pipeline_root": lambda facts: facts.root,
    "workspace_path": lambda facts: facts.workspace,
    "pipeline_task_name": lambda facts: facts.task_name,
    "pipeline_task_uuid": lambda facts: facts.task_id,
}


def _no_executor_input() -> str:
    raise BadInputError(
        "{{$}} stands where there is no executor input.",
        "Use it in a component's command or arguments.",
        code="PlaceholderUnknown",
    )


@dataclass(frozen=True)
class PlaceholderContext:
    """Values of placeholders.

    Attributes:
        parameters: What the task is given.
        artifacts: The artifacts that it is given.
        declared: The names of the inputs that its component has; one that is not given is empty.
        output_file: Where it may write its ExecutorOutput.
        output_parameters: Where it writes each parameter.
        output_artifacts: What it makes, with their places.
        facts: Facts about the run and the task.
        executor_input: Makes the JSON of ``{{$}}``; called only where it is wanted.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact | list[Artifact]] = field(default_factory=dict)
    declared: frozenset[str] = frozenset()
    output_file: str | None = None
    output_parameters: Mapping[str, str] = field(default_factory=dict)
    output_artifacts: Mapping[str, Artifact | list[Artifact]] = field(default_factory=dict)
    facts: PlaceholderFacts = field(default_factory=PlaceholderFacts)
    executor_input: Callable[[], str] = _no_executor_input


@dataclass(frozen=True)
class Placeholder:
    """A parsed placeholder.

    Attributes:
        text: As it was written, braces and all.
        kind: ``executor_input``, ``output_file``, ``fact``, ``inputs.parameters``,
            ``inputs.artifacts``, ``outputs.parameters``, ``outputs.artifacts``, or ``present``
            for the name in an ``IfPresent``.
        name: What it names: an input, an output, or a fact.
        field: Of an artifact, ``uri``, ``path``, ``name``, ``metadata`` or "" for all of it.
        key: Of its metadata, or None.
        index: Which artifact of a list, or None.
        escapes: How often it is to be escaped for JSON.
    """

    text: str
    kind: str
    name: str = ""
    field: str = ""
    key: str | None = None
    index: int | None = None
    escapes: int = 0


def check(text: str) -> list[Placeholder]:
    """Parse the placeholders of a word, in order; those within structures included.

    Raises:
        BadInputError: ``PlaceholderUnknown``, or ``PlaceholderInvalid`` for a malformed
            ``Concat`` or ``IfPresent``.
    """
    if not _STRUCTURE.match(text):
        return _references(text)
    return _structure_references(_structure(text))


def check_constant(text: str) -> list[Placeholder]:
    """Parse the placeholders in a string of a constant parameter, in order.

    Raises:
        BadInputError: ``PlaceholderUnknown``, as ``fill_constant`` does.
    """
    matches = _PLACEHOLDER.finditer(text)
    return [_reference(match[0], match[1]) for match in matches if _is_of_constant(match[1])]


def fill(words: Sequence[str], context: PlaceholderContext) -> list[str]:
    """Fill every placeholder in the words of a command.

    An ``IfPresent`` may become several words, or none.

    Raises:
        BadInputError: ``PlaceholderUnknown`` for a placeholder that is not known, or for what
            the task neither has nor could have; ``PlaceholderInvalid`` as ``check`` does.
    """
    executor_input = functools.cache(context.executor_input)

    def filled(text: str) -> str:
        return _PLACEHOLDER.sub(
            lambda match: _text(_reference(match[0], match[1]), context, executor_input), text
        )

    done: list[str] = []
    for word in words:
        if _STRUCTURE.match(word):
            done += _resolved(_structure(word), context, filled)
        else:
            done.append(filled(word))
    return done


def fill_constant(value: Any, context: PlaceholderContext) -> Any:
    """Fill the placeholders in the strings and keys of a constant parameter.

    ``{{$}}`` stays, because a constant is part of it; so does what is in the braces of another
    language, such as ``{{$.Values.name}}``.

    Raises:
        BadInputError: ``PlaceholderUnknown``, for what looks like one of KFP's and is not.
    """
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: _of_constant(match, context), value)
    if isinstance(value, Mapping):
        return {fill_constant(key, context): fill_constant(item, context)
                for key, item in value.items()}  # fmt: skip
    if isinstance(value, list | tuple):
        return [fill_constant(item, context) for item in value]
    return value


def path_of(artifact: Artifact) -> str | None:
    """Local path of an artifact, as the SDK computes it; None if it has none."""
    if artifact.custom_path:
        return artifact.custom_path
    uri = artifact.uri
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return mount + uri.removeprefix(scheme)
    if uri.startswith("oci://"):
        return f"/oci/{uri.removeprefix('oci://').replace('/', '_')}/models"
    return None if "://" in uri.removeprefix("file://") else uri.removeprefix("file://")


# Reading


def _references(text: str) -> list[Placeholder]:
    return [_reference(match[0], match[1]) for match in _PLACEHOLDER.finditer(text)]


def _reference(text: str, inside: str | None) -> Placeholder:
    """Parse the inside of a placeholder, between ``{{$`` and ``}}``."""
    escapes = 0
    inside = inside or ""
    if escaped := _ESCAPE.search(inside):
        escapes = int(escaped[1])
        inside = inside[: escaped.start()]
    path = inside.removeprefix(".")
    if escapes > _MOST_ESCAPES:
        raise _unknown(text, f"it is escaped more than {_MOST_ESCAPES} times")
    if not path:
        return Placeholder(text, "executor_input", escapes=escapes)
    if path in _OUTPUT_FILE:
        return Placeholder(text, "output_file", escapes=escapes)
    if path in _FACTS:
        return Placeholder(text, "fact", path, escapes=escapes)
    found = _PARAMETER.fullmatch(path)
    if found and (found["side"] == "outputs") == bool(found["output"]):
        return Placeholder(text, f"{found['side']}.parameters", found["name"], escapes=escapes)
    if found := _ARTIFACT.fullmatch(path):
        return Placeholder(
            text,
            f"{found['side']}.artifacts",
            found["name"],
            (found["field"] or "").partition("[")[0],
            found["key"],
            int(found["index"]) if found["index"] else None,
            escapes,
        )
    raise _unknown(text, "it is not known")


def _structure(text: str) -> Any:
    try:
        structure = json.loads(text)
    except (ValueError, RecursionError):
        raise _invalid("it is not JSON") from None
    return structure


def _structure_references(structure: Any, level: int = 0) -> list[Placeholder]:
    if isinstance(structure, str):
        return _references(structure)
    if isinstance(structure, list):
        return [found for one in structure for found in _structure_references(one, level)]
    kind, inner = _opened(structure, level)
    if kind == "Concat":
        return _structure_references(inner, level + 1)
    name = inner["InputName"]
    return [
        Placeholder(json.dumps(structure)[:200], "present", name),
        *_structure_references(inner["Then"], level + 1),
        *_structure_references(inner.get("Else") or [], level + 1),
    ]


def _opened(structure: Any, level: int) -> tuple[str, Any]:
    """The kind of a structure and what is in it, if it is well formed."""
    if level > _MOST_LEVELS:
        raise _invalid(f"it nests deeper than {_MOST_LEVELS} levels")
    if isinstance(structure, dict) and len(structure) == 1:
        kind, inner = next(iter(structure.items()))
        if kind == "Concat" and isinstance(inner, list):
            return kind, inner
        if kind == "IfPresent" and isinstance(inner, dict):
            if not isinstance(inner.get("InputName"), str) or inner.get("Then") is None:
                raise _invalid("an IfPresent needs InputName, a string, and Then")
            if extra := inner.keys() - {"InputName", "Then", "Else"}:
                raise _invalid(f"an IfPresent has no {min(extra)}")
            return kind, inner
    raise _invalid("what is nested must be a string, or have Concat or IfPresent alone")


# Filling


def _resolved(
    structure: Any, context: PlaceholderContext, filled: Callable[[str], str], level: int = 0
) -> list[str]:
    """Resolve the words of a structure."""
    if isinstance(structure, str):
        return [filled(structure)]
    if isinstance(structure, list):
        return [word for one in structure for word in _resolved(one, context, filled, level)]
    kind, inner = _opened(structure, level)
    if kind == "Concat":
        return ["".join(_resolved(inner, context, filled, level + 1))]
    chosen = inner["Then"] if _present(inner["InputName"], context) else inner.get("Else")
    return [] if chosen is None else _resolved(chosen, context, filled, level + 1)


def _present(name: str, context: PlaceholderContext) -> bool:
    return (
        context.parameters.get(name) is not None
        or context.artifacts.get(name) is not None
        or name in context.output_parameters
        or name in context.output_artifacts
    )


def _of_constant(match: re.Match[str], context: PlaceholderContext) -> str:
    if not _is_of_constant(match[1]):
        return match[0]
    return _text(_reference(match[0], match[1]), context, context.executor_input)


def _is_of_constant(inside: str | None) -> bool:
    """Whether KFP fills this inside of a placeholder in a constant."""
    name = _FIRST.match(inside or "")
    return name is not None and (name[1] in _ROOTS or name[1].startswith("pipeline_"))


def _text(
    reference: Placeholder, context: PlaceholderContext, executor_input: Callable[[], str]
) -> str:
    text = _value(reference, context, executor_input)
    for _ in range(reference.escapes):
        text = json.dumps(text, ensure_ascii=False)[1:-1]
    return text


def _value(
    reference: Placeholder, context: PlaceholderContext, executor_input: Callable[[], str]
) -> str:
    name = reference.name
    if reference.kind == "executor_input":
        return executor_input()
    if reference.kind == "fact":
        found: Any = _FACTS[name](context.facts)
    elif reference.kind == "output_file":
        found = context.output_file
    elif reference.kind == "outputs.parameters":
        found = context.output_parameters.get(name)
    elif reference.kind == "inputs.parameters":
        found = context.parameters.get(name)
    else:
        inputs = reference.kind == "inputs.artifacts"
        found = (context.artifacts if inputs else context.output_artifacts).get(name)
        if found is not None:
            return _of_artifact(reference, found)
    if found is None:
        if reference.kind.startswith("inputs.") and name in context.declared:
            return ""
        raise _unknown(reference.text, "it has no value here")
    return values.as_text(found)


def _of_artifact(reference: Placeholder, found: Artifact | list[Artifact]) -> str:
    if reference.index is None and not reference.field:
        data = [_data(one) for one in found] if isinstance(found, list) else _data(found)
        return values.as_text(data)
    several = found if isinstance(found, list) else [found]
    index = reference.index or 0
    if index >= len(several):
        raise _unknown(reference.text, f"there are only {len(several)} artifacts")
    artifact = several[index]
    if reference.key is not None:
        value = artifact.metadata.get(reference.key)
        if value is None:
            raise _unknown(reference.text, "the artifact's metadata has no such key")
        return values.as_text(value)
    said = {
        "": values.as_text(_data(artifact)),
        "uri": artifact.uri,
        "name": artifact.called,
        "metadata": values.as_text(dict(artifact.metadata)),
        "path": path_of(artifact),
    }[reference.field]
    if said is None:
        raise _unknown(reference.text, "the artifact has no local path")
    return said


def _data(artifact: Artifact) -> dict[str, Any]:
    """Convert an artifact to its form in the executor input."""
    return {
        "name": artifact.called,
        "uri": artifact.uri,
        "type": {"schemaTitle": artifact.schema, "schemaVersion": artifact.version},
        "metadata": dict(artifact.metadata),
    }


def _unknown(placeholder: str, why: str) -> BadInputError:
    return BadInputError(
        f"The placeholder {placeholder[:200]} cannot be filled: {why}.",
        "Use one of KFP's, such as {{$.inputs.parameters['NAME']}}, with a name that is there.",
        code="PlaceholderUnknown",
    )


def _invalid(why: str) -> BadInputError:
    return BadInputError(
        f"A Concat or IfPresent cannot be read: {why}.",
        'Write {"Concat": [...]} or {"IfPresent": {"InputName": ..., "Then": ..., "Else": ...}}.',
        code="PlaceholderInvalid",
    )
