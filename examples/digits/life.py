"""A model's life: trained, tuned, registered, evaluated, compared, and promoted if it is better.

It needs a stack that is up, and starts runs in its pool: python examples/digits/life.py
"""

from __future__ import annotations

import pathlib

from modelyard import (
    Algorithm,
    Client,
    ConflictError,
    EarlyStopping,
    MetricPattern,
    ModelRegistration,
    Objective,
    Parameter,
    batch_inference,
    evaluate,
    train,
    tune,
)

HERE = pathlib.Path(__file__).parent
OUT = pathlib.Path("build", "life")

MODEL = "digits-life"
ALIAS = "champion"
RULE = "accuracy >= old + 0.01"

SCRIPT = Algorithm(uri=str(HERE), entry_point="train.py")
METRICS = [MetricPattern(name="loss"), MetricPattern(name="accuracy")]


def trained() -> str:
    """Train a first model, in a hurry; its version."""
    run = train.start(
        algorithm=SCRIPT,
        hyperparameters={"epochs": 2},
        metrics=METRICS,
        model=ModelRegistration(name=MODEL),
    )
    return str(run.result().model_uri)


def tuned() -> str:
    """Look for better hyperparameters; the version of the best trial's model."""
    run = tune.start(
        algorithm=SCRIPT,
        hyperparameters={"epochs": 10},
        metrics=METRICS,
        strategy="bayesian",
        seed=1,
        parameters=[
            Parameter(name="learning_rate", type="double", min=0.001, max=0.1, log=True),
            Parameter(name="hidden", type="int", min=16, max=128, log=True),
        ],
        objective=Objective(metric="accuracy", direction="maximize"),
        early_stopping=EarlyStopping(rule="median", min_trials=3, start_step=4),
        max_trials=6,
        parallel_trials=2,
        model=ModelRegistration(name=MODEL),
    )
    return str(run.result().model_uri)


def evaluated(model: str) -> str:
    """Measure a model against digits that it has not seen; the evaluation's run."""
    version = model.rpartition("/")[2]
    run = evaluate.start(
        model=model,
        input_uri=str(HERE / "labelled.csv"),
        input_format="csv",
        target_field="digit",
        class_names=[str(digit) for digit in range(10)],
        slice_field="ink",
        drop_fields=["ink"],
        output_uri=str(OUT.absolute() / f"evaluation-{version}"),
        overwrite=True,
    )
    print(f"{model}: accuracy {run.result().metrics['accuracy']:.4f}  {run.url}")
    return run.id


def predicted(model: str) -> str:
    """Predict a data set with a model; the manifest of the results."""
    run = batch_inference.start(
        model=model,
        input_uri=str(HERE / "scans.jsonl"),
        output_uri=str(OUT.absolute() / "predictions"),
        overwrite=True,
    )
    return str(run.result().manifest_uri)


def main() -> None:
    """Live a model's life."""
    with Client() as client:
        first, second = trained(), tuned()
        runs = [evaluated(first), evaluated(second)]
        compared = client.evaluations.compare(*runs)
        difference = compared["metrics"]["accuracy"]["differences"][0]
        print("difference {difference:.4f}, within {low:.4f} and {high:.4f}".format(**difference))

        version = {uri: int(uri.rpartition("/")[2]) for uri in (first, second)}
        client.models.promote(MODEL, version[first], ALIAS)
        try:
            client.models.promote(MODEL, version[second], ALIAS, [RULE])
        except ConflictError as error:
            print(f"{first} stays the {ALIAS}: {error.message}")
        champion = f"{MODEL}@{ALIAS}"
        print(f"{champion} predicts: {predicted(champion)}")


if __name__ == "__main__":
    main()
