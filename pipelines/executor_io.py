"""ExecutorInput and ExecutorOutput of components.

Both are JSON in protobuf's spelling. A component reads the input as its argument and may write the
output as a file. Parameters may be files of their own instead; artifacts are the files at their
paths.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra import storage
from infra.errors import BadInputError
from pipelines import values
from pipelines.artifacts import Artifact, Bundle

MOST_BYTES = 32 * 2**20
_OUTPUT_FILE = "executor_output.json"
_DEFAULT_SCHEMA = "system.Artifact"
_DEFAULT_VERSION = "0.0.1"


@dataclass(frozen=True)
class OutputPlan:
    """Paths to which a task writes.

    Attributes:
        task: The task's path in its run.
        folder: The task's own folder, where it may leave what it likes.
        root: The folder of its artifacts. Whatever it addresses with ``dsl.get_uri`` is here too,
            because the SDK takes the folder of ``file`` for that.
        file: Where it may write its ExecutorOutput.
        parameters: A file for each parameter.
        artifacts: Each artifact, with its place.
        run: The folder of the artifacts of the whole run.
        volumes: Where the task has volumes mounted. What it leaves there is an address for
            whoever mounts the same volume.
    """

    task: str
    folder: Path
    root: Path
    file: Path
    parameters: Mapping[str, Path]
    artifacts: Mapping[str, Artifact]
    run: Path
    volumes: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All local paths that the task writes."""
        places = [place_of(artifact) for artifact in self.artifacts.values()]
        return (self.file, *self.parameters.values(), *(place for place in places if place))


def plan(
    task: str, component: ir.ComponentSpec, *, folder: Path, artifacts: Path, remote: str = ""
) -> OutputPlan:
    """Plan a task's output paths without creating anything.

    Args:
        task: The task's path in its run, such as ``loop/3/train``; part of its artifacts' names.
        component: What it runs.
        folder: A folder of its own.
        artifacts: The folder of the artifacts of the whole run.
        remote: The URI that this folder is sent to; "" if its artifacts stay there. Their own
            URIs are below it then.
    """
    root = artifacts.joinpath(*(_segment(part) for part in task.split("/")))
    declared = component.output_definitions
    return OutputPlan(
        task=task,
        folder=folder,
        root=root,
        file=root / _OUTPUT_FILE,
        parameters={name: folder / "parameters" / _segment(name) for name in declared.parameters},
        artifacts={
            name: Artifact(
                name=f"{task}/{name}",
                uri=remote_uri_of(root / _segment(name), artifacts, remote),
                custom_path=str(root / _segment(name)) if remote else None,
                schema=spec.artifact_type.schema_title or _DEFAULT_SCHEMA,
                version=spec.artifact_type.schema_version or _DEFAULT_VERSION,
                metadata=_plain(spec.metadata),
            )
            for name, spec in declared.artifacts.items()
        },
        run=artifacts,
    )


def remote_uri_of(place: Path, artifacts: Path, remote: str) -> str:
    """Return the URI below ``remote`` of a path in the run's folder of artifacts."""
    return f"{remote}/{place.relative_to(artifacts).as_posix()}" if remote else str(place)


def _plain(metadata: Any) -> dict[str, Any]:
    return {key: values.from_proto(value) for key, value in metadata.fields.items()}


def _segment(name: str) -> str:
    """Escape a name of the IR as one segment of a path."""
    quoted = quote(name, safe=" @+=,")[:200]
    return quoted.replace(".", "%2E") if set(quoted) <= {"."} else quoted


def prepare(outputs: OutputPlan) -> None:
    """Create the folders that a task writes to, and remove leftovers of earlier attempts."""
    for path in outputs.paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)


def executor_input(inputs: Bundle, outputs: OutputPlan) -> str:
    """Build the ExecutorInput as JSON.

    What has no value is left out: the SDK's own executor falls back to the function's default
    then, and would take ``null`` for a value in some of its versions.
    """
    told: dict[str, Any] = {}
    parameters = {
        name: values.protojson(value)
        for name, value in inputs.parameters.items()
        if value is not None
    }
    artifacts = {
        name: _listed(value if isinstance(value, list) else [value])
        for name, value in inputs.artifacts.items()
        if value is not None
    }
    if parameters:
        told["parameterValues"] = parameters
    if artifacts:
        told["artifacts"] = artifacts
    written: dict[str, Any] = {"outputFile": str(outputs.file)}
    if outputs.parameters:
        written["parameters"] = {
            name: {"outputFile": str(path)} for name, path in outputs.parameters.items()
        }
    if outputs.artifacts:
        written["artifacts"] = {
            name: _listed([artifact]) for name, artifact in outputs.artifacts.items()
        }
    whole = {"inputs": told, "outputs": written}
    text = json.dumps(whole, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no command line can hold
        return json.dumps(whole)
    return text


def _listed(artifacts: list[Artifact]) -> dict[str, Any]:
    return {"artifacts": [_runtime(artifact) for artifact in artifacts]}


def _runtime(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": artifact.called,
        "type": {"schemaTitle": artifact.schema, "schemaVersion": artifact.version},
        "uri": artifact.uri,
        "metadata": values.protojson(dict(artifact.metadata)),
    }
    if artifact.custom_path:
        found["customPath"] = artifact.custom_path
    return found


def place_of(artifact: Artifact) -> Path | None:
    """Local path of an artifact; None if it is not on this machine."""
    return Path(artifact.custom_path) if artifact.custom_path else local_path(artifact.uri)


def local_path(uri: str) -> Path | None:
    """Local path of a URI; None if it has none."""
    if uri.startswith("file://"):
        return Path(unquote(uri.removeprefix("file://")))
    return None if "://" in uri or not uri else Path(uri)


def read(outputs: OutputPlan, component: ir.ComponentSpec) -> Bundle:
    """Read the outputs of a succeeded task.

    Parameters are those of the output file, then those of their own files; one that the task has
    not written is absent. What it has put at a custom path is copied to the artifact's own place,
    so that it stays when the custom path is gone.

    Raises:
        BadInputError: With the code ``OutputMalformed``: the task, the file and the mistake.
    """
    said = _said(outputs)
    declared = component.output_definitions
    given = _mapping(said, "parameterValues", outputs)
    parameters: dict[str, Any] = {}
    for name, spec in declared.parameters.items():
        source = outputs.parameters[name]
        if given.get(name) is not None:
            source = outputs.file
            found = given[name]
        elif source.is_file():
            found = _parameter(source, spec.parameter_type, outputs)
        else:
            continue
        try:
            parameters[name] = values.validate(found, spec.parameter_type, name)
        except BadInputError as error:
            raise _malformed(outputs, source, error.message) from None
    written = _mapping(said, "artifacts", outputs)
    artifacts: dict[str, Artifact | list[Artifact]] = {}
    for name, spec in declared.artifacts.items():
        several = _artifacts(name, outputs.artifacts[name], written.get(name), outputs)
        artifacts[name] = several if spec.is_artifact_list else several[0]
    return Bundle(parameters, artifacts)


def _malformed(outputs: OutputPlan, file: Path, mistake: str) -> BadInputError:
    return BadInputError(
        f"The task {outputs.task} has written a malformed output, {file.name}: {mistake}",
        "Fix the component: its outputs must have the types that it declares.",
        code="OutputMalformed",
    )


def _text(path: Path, outputs: OutputPlan) -> str:
    if not path.is_file():
        raise _malformed(outputs, path, "it is not a file.")
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise _malformed(
            outputs,
            path,
            f"it is larger than {MOST_BYTES >> 20} MiB. Hand on an artifact instead.",
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _malformed(outputs, path, f"it is not UTF-8: byte {error.start}.") from None


def _said(outputs: OutputPlan) -> dict[str, Any]:
    if not outputs.file.exists():
        return {}
    text = _text(outputs.file, outputs)
    try:
        said = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise _malformed(outputs, outputs.file, f"it is not JSON: {error}.") from None
    if not isinstance(said, dict):
        raise _malformed(outputs, outputs.file, f"it holds no object but {_kind(said)}.")
    return said


def _mapping(said: Mapping[str, Any], key: str, outputs: OutputPlan) -> Mapping[str, Any]:
    found = said.get(key)
    if found is None:
        found = said.get("parameter_values") if key == "parameterValues" else None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _malformed(outputs, outputs.file, f"{key} is not an object but {_kind(found)}.")
    return found


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}
    return names.get(type(value), "null" if value is None else "a number")


def _parameter(path: Path, parameter_type: int, outputs: OutputPlan) -> Any:
    text = _text(path, outputs)
    try:
        return values.from_output_file(text, parameter_type)
    except BadInputError as error:
        raise _malformed(outputs, path, error.message) from None


def _artifacts(name: str, own: Artifact, written: Any, outputs: OutputPlan) -> list[Artifact]:
    """Build the artifacts of an output: the planned ones with the task's changes."""
    listed = written.get("artifacts") if isinstance(written, dict) else written
    if not listed:
        return [own]
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise _malformed(
            outputs, outputs.file, f"artifacts.{name}.artifacts is not a list of objects."
        )
    return [_changed(name, own, one, outputs) for one in listed]


def _changed(name: str, own: Artifact, said: Mapping[str, Any], outputs: OutputPlan) -> Artifact:
    def member(key: str, of: type, *names: str) -> Any:
        found = next((said[one] for one in (key, *names) if said.get(one) is not None), None)
        if found is not None and not isinstance(found, of):
            mistake = f"artifacts.{name}: {key} is {_kind(found)}."
            raise _malformed(outputs, outputs.file, mistake)
        return found

    uri = member("uri", str) or own.uri
    metadata = _finite(member("metadata", dict) or {})
    try:
        values.validate(metadata, values.ParameterType.STRUCT, f"artifacts.{name}: metadata")
    except BadInputError as error:
        raise _malformed(outputs, outputs.file, error.message) from None
    custom = member("customPath", str, "custom_path")
    changed = replace(own, uri=uri, metadata={**own.metadata, **metadata})
    place = place_of(own) if uri == own.uri else local_path(uri)
    if uri != own.uri:
        changed = replace(changed, custom_path=_written(own) if place is None else None)
    try:
        if uri != own.uri and place is not None:
            _refuse_outside(name, place, outputs)
        source = _custom(name, custom, outputs) if custom else None
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a null byte
        raise _malformed(outputs, outputs.file, f"artifacts.{name}: {error}.") from None
    if source is None:
        return changed
    if place is None:
        return replace(changed, custom_path=str(source))
    _carry(source, outputs.folder / place)
    return changed


def _finite(value: Any, deep: int = values.MOST_LEVELS) -> Any:
    """A value with the texts NaN, Infinity and -Infinity for those numbers, which JSON has not.

    A loss that is no number is a finding, and no reason for its task to fail.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, dict) and deep:
        return {key: _finite(one, deep - 1) for key, one in value.items()}
    if isinstance(value, list) and deep:
        return [_finite(one, deep - 1) for one in value]
    return value


def _written(own: Artifact) -> str | None:
    """Path that a task has written as planned; None if it has not."""
    place = place_of(own)
    return str(place) if place is not None and place.exists() else None


def _custom(name: str, custom: str, outputs: OutputPlan) -> Path | None:
    """Path of a custom path's content; None if there is none."""
    source = outputs.folder / custom
    if not source.exists():
        return None
    _refuse_outside(name, source, outputs)
    if not source.is_file() and not source.is_dir():
        mistake = f"artifacts.{name}: {custom} is neither a file nor a folder."
        raise _malformed(outputs, outputs.file, mistake)
    return source


def _refuse_outside(name: str, place: Path, outputs: OutputPlan) -> None:
    found = (outputs.folder / place).resolve()
    if any((outputs.folder / place).is_relative_to(volume) for volume in outputs.volumes):
        return
    for allowed in (outputs.run, outputs.folder, Path(tempfile.gettempdir())):
        if found.is_relative_to(allowed.resolve()):
            return
    raise _malformed(
        outputs,
        outputs.file,
        f"artifacts.{name} lies at {place}, outside the folders of its run.",
    )


def _carry(source: Path, place: Path) -> None:
    """Copy a custom path's content to the artifact's own path, unless it is there."""
    if source.resolve() == place.resolve() or place.resolve().is_relative_to(source.resolve()):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        storage.copy_tree(source, place, dirs_exist_ok=True)
    else:
        shutil.copy2(source, place)
