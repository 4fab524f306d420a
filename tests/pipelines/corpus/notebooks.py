"""A component that is a notebook, run by a kernel of the component's own environment."""

from pathlib import Path

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE, add

ARGUMENTS = {"number": 4}
OUTPUTS = {"Output": 9}
_NOTEBOOK = Path(__file__).parent / "carried" / "double.ipynb"


@dsl.notebook_component(notebook_path=str(_NOTEBOOK), base_image=IMAGE)
def double(number: int) -> int:
    import os
    import tempfile

    place = os.path.join(tempfile.mkdtemp(), "doubled")
    dsl.run_notebook(number=number, place=place)
    with open(place) as file:
        return int(file.read())


@dsl.pipeline(name="notebooks")
def pipeline(number: int) -> int:
    return add(a=double(number=number).output, b=1).output
