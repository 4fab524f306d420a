"""Uses MLflow in all the ways that a script may, and tries some that it may not."""

import json
import os
from pathlib import Path

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

OTHER = os.environ["EM_HP_OTHER"]
OWN = os.environ["MLFLOW_RUN_ID"]
client = MlflowClient()
refused = {}


def attempt(name, call):
    try:
        call()
    except MlflowException as error:
        refused[name] = str(error)
    else:
        refused[name] = ""


mlflow.autolog(log_models=False)
x = np.random.default_rng(0).normal(size=(60, 3))
y = (x[:, 0] > 0).astype(int)
with mlflow.start_run() as run:
    assert run.info.run_id == OWN
    experiment = run.info.experiment_id
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(x, y)
    mlflow.log_param("by_hand", "yes")
    mlflow.log_metric("by_hand", 0.5, step=1)
    mlflow.log_metrics({"a": 1.0, "b": 2.0})
    mlflow.set_tag("colour", "blue")
    mlflow.log_dict({"x": 1}, "notes/x.json")
    mlflow.log_text("hello", "notes/hello.txt")
    Path("weights.bin").write_bytes(b"w" * 100_000)
    mlflow.log_artifact("weights.bin", "files")
    mlflow.log_input(mlflow.data.from_numpy(x, name="made"))
    fitted = LogisticRegression().fit(x, y)
    needs = ["scikit-learn"]  # found out by MLflow itself, in ten seconds
    logged = mlflow.sklearn.log_model(fitted, name="by_hand", pip_requirements=needs)
    assert mlflow.sklearn.load_model(logged.model_uri).predict(x).shape == (60,)
    with mlflow.start_run(nested=True) as nested:
        mlflow.log_metric("inner", 1.0)
        mlflow.log_text("inner", "inner.txt")
    names = {file.path for file in client.list_artifacts(OWN, "notes")}
    assert names == {"notes/x.json", "notes/hello.txt"}, names
    assert mlflow.artifacts.load_text(f"runs:/{OWN}/notes/hello.txt") == "hello"
    assert client.get_metric_history(OWN, "by_hand")[0].value == 0.5
    assert client.get_run(nested.info.run_id).data.metrics == {"inner": 1.0}
    mlflow.set_experiment(mlflow.get_experiment(experiment).name)

    attempt("read another run", lambda: client.get_run(OTHER))
    attempt("write another run", lambda: client.log_metric(OTHER, "stolen", 1.0))
    attempt("delete another run", lambda: client.delete_run(OTHER))
    attempt("artifacts of another run", lambda: client.list_artifacts(OTHER))
    attempt("write artifacts", lambda: client.log_text(OTHER, "stolen", "x.txt"))
    attempt("search runs", lambda: client.search_runs([experiment]))
    attempt("experiments", client.search_experiments)
    attempt("new experiment", lambda: client.create_experiment("stolen"))
    attempt("register", lambda: mlflow.register_model(logged.model_uri, "stolen"))
    attempt("platform's tag", lambda: client.set_tag(OWN, "modelyard.flow_run_id", "stolen"))

print("REFUSED " + json.dumps(refused))
