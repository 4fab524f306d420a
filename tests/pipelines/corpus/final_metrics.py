"""Metrics, classification metrics, Markdown and HTML."""

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Markdown, Metrics, Output

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {}
OUTPUTS = {}


@dsl.component(base_image=IMAGE)
def evaluate(
    metrics: Output[Metrics],
    classes: Output[ClassificationMetrics],
    note: Output[Markdown],
    page: Output[HTML],
):
    metrics.log_metric("accuracy", 0.9)
    metrics.log_metric("loss", 0.1)
    classes.log_roc_curve([0.0, 0.5, 1.0], [0.0, 0.8, 1.0], [0.9, 0.5, 0.1])
    classes.log_confusion_matrix(["a", "b"], [[8, 2], [1, 9]])
    for artifact, text in ((note, "# Well"), (page, "<b>Well</b>")):
        with open(artifact.path, "w") as file:
            file.write(text)


@dsl.pipeline(name="final-metrics")
def pipeline():
    evaluate()
