"""Keras on TensorFlow: what the notebook wrote that this suite grew from."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import Backend, Dtype, FloatArray, IntArray, NDArray, Problem, Split, Style, Weights


class Keras(Backend):
    """`Sequential` of two softmax `Dense` layers, `categorical_crossentropy`, `adam`, and `fit`.

    Keras's Adam is the Problem's. It takes the powers of its betas in float32, which shows in `lockstep verify` as
    about ten times the rounding of the others. Given to it as `np.float64` they are exact in float64 arithmetic too,
    and in float32 they are what Python's floats would be.
    """

    name: ClassVar[str] = "keras"
    style: ClassVar[Style] = "idiomatic"
    packages = ("keras", "tensorflow")
    modules = ("tensorflow", "keras")
    extra = "keras"

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """Keras's engine, and no advice on standard error."""
        return {
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "-1",
        }

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Make and compile the model, and overwrite its weights."""
        import keras

        keras.backend.clear_session()
        keras.config.set_floatx(problem.dtype)
        self.problem = problem
        self.model = keras.Sequential(
            [
                keras.layers.Input((problem.inputs,)),
                keras.layers.Dense(problem.hidden, activation="softmax"),
                keras.layers.Dense(problem.classes, activation="softmax"),
            ]
        )
        self.model.set_weights(list(weights))
        self.model.compile(
            loss="categorical_crossentropy",
            optimizer=keras.optimizers.Adam(
                learning_rate=problem.learning_rate,
                beta_1=np.float64(problem.beta_1),
                beta_2=np.float64(problem.beta_2),
                epsilon=problem.epsilon,
            ),
        )
        self.images = train.images.astype(problem.dtype, copy=False)
        self.targets = keras.utils.to_categorical(train.labels, problem.classes)

    def train(self, order: IntArray) -> float:
        """One `fit` over the images in the harness's order."""
        history = self.model.fit(
            self.images[order],
            self.targets[order],
            batch_size=self.problem.batch_size,
            epochs=1,
            shuffle=False,
            verbose=0,
        )
        return float(history.history["loss"][0])

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """`predict` in large batches: its default of 32 would measure Keras's loop."""
        probabilities: FloatArray = self.model.predict(images, batch_size=1000, verbose=0)
        return probabilities

    def weights(self) -> Weights:
        """Keras's kernels are (in, out) already."""
        return Weights(*(np.array(array) for array in self.model.get_weights()))
