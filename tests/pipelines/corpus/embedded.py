"""A component that carries files within itself, as the compiler packs them."""

from pathlib import Path

from kfp import dsl
from kfp.dsl import Dataset

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {}
OUTPUTS = {"Output": "carried"}
CARRIED = Path(__file__).parent / "carried"


@dsl.component(base_image=IMAGE, embedded_artifact_path=str(CARRIED))
def look(carried: dsl.EmbeddedInput[Dataset]) -> str:
    import os

    with open(os.path.join(carried.path, "note.txt")) as file:
        return file.read().strip()


@dsl.pipeline(name="embedded")
def pipeline() -> str:
    return look().output
