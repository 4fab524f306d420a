"""Uploaded pipelines, as ``modelyard pipeline``."""

from __future__ import annotations

from flows import pipelines
from modelyard.api.verbs import noun, verb
from registry import deletion
from registry.pipelines import pipelines as rows
from registry.pipelines.pipeline_views import PipelineView
from registry.views import JsonObject


def _update(name: str, *, description: str) -> PipelineView:
    """Change the description; new versions are uploaded."""
    return rows.describe(name, description)


def _download(name: str) -> bytes:
    """Return the file of a version, as it was uploaded."""
    data, _ = rows.compiled(name)
    return data


def _delete(name: str) -> JsonObject:
    """Delete a pipeline, or one version of it, that no schedule runs."""
    return deletion.delete("pipeline", name)


@noun("pipelines")
class PipelineVerbs:
    """Uploaded pipelines."""

    upload = staticmethod(verb(pipelines.upload))
    list = staticmethod(verb(rows.list_all))
    show = staticmethod(verb(rows.show))
    versions = staticmethod(verb(rows.versions))
    update = staticmethod(verb(_update))
    rename = staticmethod(verb(pipelines.rename))
    download = staticmethod(verb(_download))
    delete = staticmethod(verb(_delete))
