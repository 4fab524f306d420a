"""An artifact whose address is set by the component, and one whose file is."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {}
OUTPUTS = {"Output": "kept"}


@dsl.component(base_image=IMAGE)
def make(folder: Output[Artifact], file: Output[Dataset]):
    import os

    os.makedirs(folder.path)
    with open(os.path.join(folder.path, "inside.txt"), "w") as out:
        out.write("kept")
    file.uri = file.uri + "-moved"
    with open(file.path, "w") as out:
        out.write("moved")


@dsl.component(base_image=IMAGE)
def look(folder: Input[Artifact], file: Input[Dataset]) -> str:
    import os

    with open(file.path) as moved:
        assert moved.read() == "moved"
    with open(os.path.join(folder.path, "inside.txt")) as out:
        return out.read()


@dsl.pipeline(name="custom-paths")
def pipeline() -> str:
    made = make()
    return look(folder=made.outputs["folder"], file=made.outputs["file"]).output
