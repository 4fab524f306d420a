"""Importers: of a fixed address, and of one that is given; with metadata."""

from kfp import dsl
from kfp.dsl import Dataset

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {"address": "file:///given"}
OUTPUTS = {"Output": "file:///given {'rows': '3'}"}


@dsl.component(base_image=IMAGE)
def address_of(data: dsl.Input[Dataset]) -> str:
    return f"{data.uri} { {'rows': str(int(data.metadata['rows']))} }"


@dsl.pipeline(name="importing")
def pipeline(address: str) -> str:
    dsl.importer(artifact_uri="file:///fixed", artifact_class=Dataset, reimport=True)
    given = dsl.importer(artifact_uri=address, artifact_class=Dataset, metadata={"rows": 3})
    return address_of(data=given.output).output
