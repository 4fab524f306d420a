"""Reader of compiled pipelines: YAML of one or two documents, JSON, or a zip of these.

The reader checks the form of a pipeline, ``validation`` its meaning.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError
from pipelines import documents, packages, shape
from pipelines.faults import FaultCollector
from pipelines.pipeline import Pipeline

_SCHEMA = re.compile(r"2\.(0\.0|1\.\d+)\Z")
_KUBERNETES = "kubernetes"
_MOST_DOCUMENTS = 2
_M = TypeVar("_M", bound=Message)
_DEEPEST = 4 * documents.DEEPEST


def read(path: Path) -> Pipeline:
    """Read the pipeline of a file.

    Raises:
        BadInputError: If it is not there (``PipelineFileMissing``), or as of ``read_bytes``.
    """
    return read_bytes(contents(path), path.name)


def contents(path: Path) -> bytes:
    """Read a file, of a too large one only as much as is needed to refuse it.

    Raises:
        BadInputError: If it is not there, with the code ``PipelineFileMissing``.
    """
    if not path.is_file():
        raise BadInputError(
            f"There is no file {path}.", "Check the path.", code="PipelineFileMissing"
        )
    try:
        with path.open("rb") as file:
            return file.read(documents.LARGEST + 1)
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}.",
            "Check that you may read the file.",
            code="PipelineFileMissing",
        ) from None


def read_bytes(data: bytes, name: str) -> Pipeline:
    """Read a pipeline.

    Args:
        data: The file.
        name: Its name, for errors and to recognize a zip.

    Raises:
        BadInputError: With the code ``PipelineTooLarge``, ``PipelineEmpty``, ``PackageInvalid``,
            ``PipelineUnreadable``, ``PipelineTooComplex``, ``PipelineFormatUnknown``,
            ``PipelineSchemaUnknown``, ``PipelineNameMissing``, or ``PipelineInvalid`` with all
            that keeps it from being read, each with its place.
    """
    if len(data) > documents.LARGEST:
        raise documents.too_large(name)
    if data and packages.is_zip(data, name):
        data, name = packages.extract_pipeline(data, name)
    packages.refuse_other_archives(data, name)
    found = documents.parse(data, name)
    if len(found) > _MOST_DOCUMENTS:
        raise _format(name, f"has {len(found)} documents", "It has the pipeline, and may have "
                      "the platform's settings.")  # fmt: skip
    main = _unwrapped(_mapping(found[0], name), name)
    platform = _mapping(found[1], name) if len(found) > 1 else {}
    _check_kind(main, platform, name)
    _check_head(main, name)
    return _built(main, platform, name)


def _format(name: str, why: str, hint: str) -> BadInputError:
    return BadInputError(f"{name} {why}.", hint, code="PipelineFormatUnknown")


def _mapping(document: Any, name: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise _format(
            name, "is not a pipeline: it has no name: value lines",
            "Give the file that the KFP SDK's compiler has written.",
        )  # fmt: skip
    return document


def _either(document: Mapping[str, Any], *names: str) -> Any:
    """Return a field whose name may be in camel or snake case."""
    return next((document[name] for name in names if name in document), None)


def _unwrapped(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Extract the pipeline of a job, with the job's parameters as defaults."""
    spec = _either(document, "pipelineSpec", "pipeline_spec")
    if spec is None or "root" in document:
        return document
    spec = _mapping(spec, name)
    runtime = _either(document, "runtimeConfig", "runtime_config")
    values = (
        runtime
        and isinstance(runtime, dict)
        and _either(runtime, "parameterValues", "parameter_values")
    )
    if not values or not isinstance(values, dict):
        return spec
    copied: dict[str, Any] = json.loads(json.dumps(spec))  # aliases may share parts of it
    definitions: Any = copied
    for part in ("root", "inputDefinitions", "parameters"):
        definitions = definitions.get(part) if isinstance(definitions, dict) else None
    for key, value in values.items() if isinstance(definitions, dict) else ():
        if isinstance(definitions.get(key), dict):
            definitions[key]["defaultValue"] = value
    return copied


def _check_kind(main: Mapping[str, Any], platform: Mapping[str, Any], name: str) -> None:
    """Refuse other kinds of files, naming their kind."""
    again = "Compile it with the KFP SDK, version 2."
    kind = main.get("kind")
    if kind == "Workflow":
        raise _format(name, "is a workflow of Argo, which KFP's version 1 has compiled", again)
    if kind in {"Pipeline", "PipelineVersion"}:
        raise _format(
            name, f"is a manifest of Kubernetes ({kind})",
            "Compile the pipeline without kubernetes_manifest_format.",
        )  # fmt: skip
    if "implementation" in main:
        raise _format(
            name, "is a component of KFP's version 1, no pipeline",
            f"Use it in a pipeline (kfp.components.load_component_from_file). {again}",
        )  # fmt: skip
    if "platforms" in main:
        raise _format(name, "begins with the platform's settings", "The pipeline comes first.")
    if kind is not None or "root" not in main:
        what = f"a manifest of Kubernetes ({kind})" if kind else "no compiled pipeline: no root"
        raise _format(name, f"is {what}", again)
    if platform and "platforms" not in platform:
        raise _format(
            name, "has a second document that is not a platform's settings",
            "It has platforms: at its top, or is left out.",
        )  # fmt: skip


def _check_head(main: Mapping[str, Any], name: str) -> None:
    version = _either(main, "schemaVersion", "schema_version")
    if not isinstance(version, str) or not _SCHEMA.match(version):
        problems = "no schemaVersion" if version is None else f"the schemaVersion {version!r}"
        raise BadInputError(
            f"{name} has {problems}.",
            "Read are 2.1.0 and 2.0.0; compile it with the KFP SDK, version 2.",
            code="PipelineSchemaUnknown",
        )
    info = _either(main, "pipelineInfo", "pipeline_info")
    called = info.get("name") if isinstance(info, dict) else None
    if called is None or (isinstance(called, str) and not called.strip()):
        raise BadInputError(
            f"{name} has no pipelineInfo.name.",
            "Give the pipeline a name: @dsl.pipeline(name=...).",
            code="PipelineNameMissing",
        )


def _built(main: dict[str, Any], platform: dict[str, Any], name: str) -> Pipeline:
    deployment = _either(main, "deploymentSpec", "deployment_spec") or {}
    faults = FaultCollector()
    shape.check(main, ir.PipelineSpec.DESCRIPTOR, "", faults)
    if isinstance(deployment, dict):
        described = ir.PipelineDeploymentConfig.DESCRIPTOR
        shape.check(deployment, described, "deploymentSpec", faults)
    shape.check(platform, ir.PlatformSpec.DESCRIPTOR, "", faults)
    faults.raise_any(name)
    spec = _parsed(main, ir.PipelineSpec(), name)
    platforms = _parsed(platform, ir.PlatformSpec(), name).platforms
    for other in sorted(set(platforms) - {_KUBERNETES}):
        faults.add(f"platforms.{other}", "This platform is not supported.", "Drop it.")
    faults.raise_any(name)
    own = platforms[_KUBERNETES] if _KUBERNETES in platforms else ir.SinglePlatformSpec()
    executors = {
        label: json_format.MessageToDict(config)
        for label, config in own.deployment_spec.executors.items()
    }
    config = json_format.MessageToDict(own.pipelineConfig)
    return Pipeline(
        spec=spec,
        deployment=_parsed(deployment, ir.PipelineDeploymentConfig(), name),
        kubernetes=executors,
        config=config,
        digest=_digest([json_format.MessageToDict(spec), executors, config]),
    )


def _parsed(data: dict[str, Any], message: _M, name: str) -> _M:
    try:
        # shape has reported all unknown fields except ignorable ones.
        json_format.ParseDict(
            data, message, ignore_unknown_fields=True, max_recursion_depth=_DEEPEST
        )
    except json_format.ParseError as error:  # what shape has not seen
        problems = " ".join(str(error).split())[:300]
        raise BadInputError(
            f"{name} is malformed: {problems}",
            "Fix what it names, or compile the pipeline again with the KFP SDK, version 2.",
            code="PipelineInvalid",
        ) from None
    return message


def _digest(parts: list[Any]) -> str:
    """Compute a digest that ignores order, style and the spelling of field names."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
