"""Whatever there is to look at: metrics, plots, reports, files, groups, and every state."""

from kfp import dsl
from kfp.dsl import (
    HTML,
    ClassificationMetrics,
    Dataset,
    Markdown,
    Metrics,
    Model,
    Output,
    SlicedClassificationMetrics,
)

from tests.pipelines.corpus.components import IMAGE, add, read, write


@dsl.component(base_image=IMAGE)
def measure(rate: float, scores: Output[Metrics], more: Output[Metrics]) -> float:
    scores.log_metric("accuracy", rate)
    scores.log_metric("classes", 3)
    scores.metadata["kind"] = "a text"
    more.log_metric("seconds %", 1.5)
    return rate


@dsl.component(base_image=IMAGE)
def classify(
    whole: Output[ClassificationMetrics], sliced: Output[SlicedClassificationMetrics]
) -> int:
    whole.log_roc_curve([0.0, 0.2, 1.0], [0.0, 0.9, 1.0], [1.0, 0.5, 0.0])
    whole.log_confusion_matrix(["cat", "dog"], [[40, 2], [3, 55]])
    specs = [{"displayName": "cat"}, {"displayName": "dog"}]
    matrix = {"annotationSpecs": specs, "rows": [{"row": [20, 1]}, {"row": [2, 25]}]}
    sliced.metadata["evaluationSlices"] = [  # the class's own methods fail in KFP's executor
        {"slice": name, "sliceClassificationMetrics": {"confusionMatrix": matrix}}
        for name in ("young", "old")
    ]
    return 98


@dsl.component(base_image=IMAGE)
def report(page: Output[HTML], text: Output[Markdown]):
    with open(page.path, "w") as file:
        file.write("<h1>A page</h1>")
    with open(text.path, "w") as file:
        file.write("# A report\n\nIt went **well**.\n")


@dsl.component(base_image=IMAGE)
def fit(rate: float, model: Output[Model], scores: Output[Metrics], large: Output[Dataset]):
    import os

    print(f"fitting with {rate}")
    os.makedirs(model.path)
    with open(os.path.join(model.path, "weights"), "w") as file:
        file.write(str(rate))
    model.metadata["framework"] = "none"
    scores.log_metric("loss", 1 / (1 + rate))
    with open(large.path, "wb") as file:
        file.write(b"x" * 2_000_000)


@dsl.component(base_image=IMAGE)
def succeed_second(folder: str) -> int:
    import os

    path = os.path.join(folder, "tried")
    if not os.path.exists(path):
        open(path, "w").close()
        raise RuntimeError("not yet")
    return 2


@dsl.pipeline
def inner(text: str) -> str:
    written = write(text=text)
    return read(data=written.outputs["data"]).output


@dsl.pipeline(name="shown")
def pipeline(folder: str, rates: list = [0.1, 0.2, 0.3]) -> float:  # noqa: B006
    measured = measure(rate=0.75)
    classified = classify().after(measured)
    report().after(measured)
    inner(text="some text").after(measured)
    with dsl.ParallelFor(rates) as rate:
        fit(rate=rate)
    with dsl.If(classified.outputs["Output"] < 90):
        add(a=1)
    succeed_second(folder=folder).set_retry(num_retries=2, backoff_duration="0s")
    return measured.outputs["Output"]


ARGUMENTS = {"folder": "{folder}"}
OUTPUTS = {"Output": 0.75}
