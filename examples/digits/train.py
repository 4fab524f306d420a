"""Train a neural network on scikit-learn's 1 797 scanned digits, epoch by epoch.

Written for AI EasyMaker's contract: arguments come as --key value, folders as EM_* variables.
"""

import argparse
import json
import os
import pathlib

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning_rate", type=float, default=0.002)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--activation", default="relu")
    arguments, _ = parser.parse_known_args()

    images, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images / 16.0, digits, test_size=0.25, random_state=0, stratify=digits
    )
    model = MLPClassifier(
        (arguments.hidden,),
        activation=arguments.activation,
        learning_rate_init=arguments.learning_rate,
        random_state=0,
    )
    begin = 0
    resumed = os.environ.get("EM_CHECKPOINT_INPUT_DIR")
    if resumed and (checkpoint := pathlib.Path(resumed, "checkpoint.joblib")).exists():
        begin, model = joblib.load(checkpoint)
        print(f"resumed after epoch {begin}")

    for epoch in range(begin + 1, arguments.epochs + 1):
        order = np.random.default_rng(epoch).permutation(len(train_x))
        for batch in np.array_split(order, 20):
            model.partial_fit(train_x[batch], train_y[batch], classes=np.arange(10))
        probabilities = model.predict_proba(test_x)
        accuracy = accuracy_score(test_y, probabilities.argmax(axis=1))
        print(f"epoch {epoch} loss={log_loss(test_y, probabilities):.4f} accuracy={accuracy:.4f}")
        checkpoint = pathlib.Path(os.environ["EM_CHECKPOINT_DIR"], "checkpoint.joblib")
        joblib.dump((epoch, model), checkpoint.with_suffix(".partial"))
        checkpoint.with_suffix(".partial").replace(checkpoint)

    folder = pathlib.Path(os.environ["EM_MODEL_DIR"])
    joblib.dump(model, folder / "model.joblib")
    (folder / "metrics.json").write_text(json.dumps({"accuracy": accuracy}))


if __name__ == "__main__":
    main()
