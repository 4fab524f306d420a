"""Type compatibility of outputs and inputs, by the SDK's rules."""

from __future__ import annotations

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines.values import ParameterType

_ANY = "system.Artifact"
_NUMBERS = {ParameterType.NUMBER_INTEGER, ParameterType.NUMBER_DOUBLE}
_MAPPINGS = {ParameterType.STRUCT, ParameterType.TASK_FINAL_STATUS, ParameterType.TASK_CONFIG}


def parameters_fit(given: ParameterType, wanted: ParameterType) -> bool:
    """Whether a parameter of one type can be passed to an input of another.

    A number may be given for a whole number: its value decides, when it is there.
    """
    if ParameterType.UNSPECIFIED in {given, wanted} or given == wanted:
        return True
    return {given, wanted} <= _NUMBERS or {given, wanted} <= _MAPPINGS


def artifacts_fit(given: ir.ArtifactTypeSchema, wanted: ir.ArtifactTypeSchema) -> bool:
    """Whether an artifact of one type can be passed to an input of another."""
    titles = {given.schema_title, wanted.schema_title}
    if "" in titles or _ANY in titles:
        return True
    if len(titles) > 1:
        return False
    versions = {one.schema_version.split(".")[0] for one in (given, wanted)}
    return "" in versions or len(versions) == 1
