"""Keras on TensorFlow: `fit`, `predict`, and the model as a `tf.function`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from experiments.benchmarks.opponents import child


class Keras:
    def __init__(self, folder: Path) -> None:
        keras.utils.set_random_seed(0)
        rows, shape = child.read(folder, "train"), child.sizes(folder)
        self.columns = [np.array(rows[name]) for name in ("user", "item", "features")]
        self.liked = np.array(rows["liked"])
        user, item = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
        features = keras.Input((shape["columns"],))
        deep = layers.Concatenate()(
            [
                layers.Embedding(shape["users"], child.DIM)(user),
                layers.Embedding(shape["items"], child.DIM)(item),
                features,
            ]
        )
        for width in child.HIDDEN:
            deep = layers.Dropout(child.DROPOUT)(layers.Dense(width, activation="relu")(deep))
        logits = layers.Add()([layers.Dense(1)(features), layers.Dense(1)(deep)])
        self.model = keras.Model([user, item, features], logits)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        self.model.compile(keras.optimizers.Adam(child.RATE), loss)

    def train(self, start: int, stop: int) -> int:
        columns = [column[start:stop] for column in self.columns]
        self.model.fit(columns, self.liked[start:stop], batch_size=child.BATCH, verbose=0)
        return stop - start

    def probabilities(self, rows: child.Rows) -> np.ndarray:
        columns = [np.asarray(rows[name]) for name in ("user", "item", "features")]
        logits = self.model.predict(columns, batch_size=child.INFERENCE_ROWS, verbose=0)
        found: np.ndarray = tf.sigmoid(logits[:, 0]).numpy()
        return found

    def inference(self, rows: child.Rows) -> dict[str, Callable[[], object]]:
        columns = [tf.constant(rows[name]) for name in ("user", "item", "features")]
        call = tf.function(lambda *inputs: tf.sigmoid(self.model(list(inputs), training=False)))
        return {
            "predict": lambda: self.probabilities(rows),
            "tf.function": lambda: call(*columns).numpy(),
        }

    def save(self, path: Path) -> None:
        whole = path.with_suffix(".keras")
        self.model.save(whole)
        whole.rename(path)


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[2]))
    tf.config.threading.set_inter_op_parallelism_threads(int(sys.argv[2]))
    child.serve(Keras(Path(sys.argv[1])), Path(sys.argv[1]))
