"""Write the SavedModel beside this file: ``y = 2 x + 1``, with its two variables.

``python make_saved_model.py``, where TensorFlow is installed; it made the folder with 2.21.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import tensorflow as tf

FOLDER = Path(__file__).with_name("saved_model")


class Line(tf.Module):
    """A straight line."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = tf.Variable(2.0)
        self.offset = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.slope * x + self.offset}


def main() -> None:
    line = Line()
    shutil.rmtree(FOLDER, ignore_errors=True)
    tf.saved_model.save(line, str(FOLDER), signatures=line.__call__)
    (FOLDER / "fingerprint.pb").unlink()  # of this very saving, and not needed
    loaded = tf.saved_model.load(str(FOLDER)).signatures["serving_default"]
    assert loaded(x=tf.constant([3.0]))["y"].numpy().tolist() == [7.0]


if __name__ == "__main__":
    main()
