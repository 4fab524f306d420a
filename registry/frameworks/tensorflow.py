"""TensorFlow: a SavedModel folder."""

from __future__ import annotations

from registry.frameworks import protobuf
from registry.frameworks.layout import Layout, refused

_GRAPH = "saved_model.pb"
_META_GRAPHS = 2  # the field of SavedModel that holds the graphs
_VARIABLES = "variables/variables"


def check(layout: Layout, name: str) -> None:
    """Refuse what is not a SavedModel.

    Raises:
        BadInputError: ``SavedModelMissing``, ``SavedModelMalformed``, ``VariablesIncomplete``.
    """
    check_saved_model(layout, "")


def check_saved_model(layout: Layout, folder: str) -> None:
    """The same below ``folder``, which ends in '/' or is ""."""
    graph = folder + _GRAPH
    if graph not in layout.sizes:
        raise refused(
            "SavedModelMissing",
            f"There is no {graph} at {layout.uri}.",
            layout.elsewhere(f"/{_GRAPH}") or "Save it with tf.saved_model.save.",
        )
    _check_graph(layout, graph)
    _check_variables(layout, folder + _VARIABLES)


def _check_graph(layout: Layout, graph: str) -> None:
    try:
        with layout.open(graph) as file:
            found = set(protobuf.fields(file, layout.sizes[graph]))
        reason = "" if _META_GRAPHS in found else "it holds no graph"
    except protobuf.MalformedError as error:
        reason = str(error)
    if reason:
        raise refused(
            "SavedModelMalformed",
            f"{graph} at {layout.uri} is not a SavedModel: {reason}.",
            "Save or copy it again.",
        )


def _check_variables(layout: Layout, prefix: str) -> None:
    """The checkpoint beside the graph has its index and all of its shards, or is not there."""
    index = f"{prefix}.index"
    shards = [name for name in layout.sizes if name.startswith(f"{prefix}.data-")]
    if not shards and index not in layout.sizes:
        return
    total = len(shards)
    complete = {f"{prefix}.data-{number:05d}-of-{total:05d}" for number in range(total)}
    if index not in layout.sizes or not shards or set(shards) != complete:
        raise refused(
            "VariablesIncomplete",
            f"The variables at {layout.uri} are incomplete: {', '.join(sorted(shards)[:3])} "
            f"{'with' if index in layout.sizes else 'without'} {index}.",
            "Copy the whole variables/ folder again.",
        )
