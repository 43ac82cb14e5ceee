"""Keras on its three engines: as its documentation has it, and with all that it offers to be fast."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lockstep_bench.backends.base import (
    FULL_FLOAT32,
    Backend,
    Dtype,
    FloatArray,
    IntArray,
    NDArray,
    Problem,
    Split,
    Style,
    Weights,
)
from lockstep_bench.backends.jax import jax_environment, jax_memory_bytes, use_jax_gpu
from lockstep_bench.backends.tensorflow import tensorflow_environment, tensorflow_memory_bytes, use_gpu

STEPS_PER_EXECUTION = 500
"""Steps that `keras-xla` takes before it returns to Python; fewer where fewer are left."""


class Keras(Backend):
    """`Sequential` of two softmax `Dense` layers, `categorical_crossentropy`, `adam`, and `fit`: the notebook's way.

    Keras's Adam is the Problem's. It takes the powers of its betas in float32, which shows in `lockstep verify` as
    about ten times the rounding of the others. Given to it as `np.float64` they are exact in float64 arithmetic too,
    and in float32 they are what Python's floats would be.
    """

    name: ClassVar[str] = "keras"
    style: ClassVar[Style] = "idiomatic"
    packages: ClassVar[tuple[str, ...]] = ("keras", "tensorflow")
    modules: ClassVar[tuple[str, ...]] = ("tensorflow", "keras")
    extra: ClassVar[str] = "keras"
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    from_logits: ClassVar[bool] = False

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """Keras's engine, and what that has to be told."""
        return {"KERAS_BACKEND": "tensorflow", **tensorflow_environment(device)}

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Make and compile the model, and overwrite its weights."""
        import keras

        if device == "cuda":
            self._use_gpu()
        keras.backend.clear_session()
        keras.config.set_floatx(problem.dtype)
        self.device, self.problem = device, problem
        self.model = keras.Sequential(
            [
                keras.layers.Input((problem.inputs,)),
                keras.layers.Dense(problem.hidden, activation="softmax"),
                keras.layers.Dense(problem.classes, activation=None if self.from_logits else "softmax"),
            ]
        )
        self.model.set_weights(list(weights))
        self.model.compile(
            loss=keras.losses.CategoricalCrossentropy(from_logits=self.from_logits),
            optimizer=keras.optimizers.Adam(
                learning_rate=problem.learning_rate,
                beta_1=np.float64(problem.beta_1),
                beta_2=np.float64(problem.beta_2),
                epsilon=problem.epsilon,
            ),
            **self._options(),
        )
        self.images = train.images.astype(problem.dtype, copy=False)
        self.targets = keras.utils.to_categorical(train.labels, problem.classes)

    def _use_gpu(self) -> None:
        """See that the engine has one."""
        use_gpu()

    def _options(self) -> dict[str, Any]:
        """More arguments of `compile`."""
        return {}

    def train(self, order: IntArray) -> float:
        """One `fit` over the images in the harness's order."""
        history = self.model.fit(
            self.images[order],
            self.targets[order],
            batch_size=self.problem.batch_size,
            shuffle=False,
            verbose=0,
        )
        return float(history.history["loss"][0])

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """`predict` in large batches: its default of 32 would measure Keras's loop."""
        import keras

        outputs: FloatArray = self.model.predict(images, batch_size=1000, verbose=0)
        return keras.ops.convert_to_numpy(keras.ops.softmax(outputs)) if self.from_logits else outputs

    def weights(self) -> Weights:
        """Keras's kernels are (in, out) already."""
        return Weights(*(np.array(array) for array in self.model.get_weights()))

    def device_memory_bytes(self) -> int | None:
        """Of the engine's own allocator."""
        return tensorflow_memory_bytes()

    def synchronize(self) -> None:
        """`fit` returns numbers, and so waits; what comes after the last of them is waited for here."""
        import tensorflow as tf

        if self.device == "cuda":
            tf.experimental.sync_devices()


class KerasXla(Keras):
    """The same model and `fit`, compiled by XLA, many steps in one call, fed by a `tf.data.Dataset` of its batches.

    `docs/tuning.md` has what each of these brings.
    """

    name: ClassVar[str] = "keras-xla"
    style: ClassVar[Style] = "tuned"

    def _options(self) -> dict[str, Any]:
        return {"jit_compile": True, "steps_per_execution": STEPS_PER_EXECUTION}

    def train(self, order: IntArray) -> float:
        """`fit` would make a dataset of arrays too, but one that picks its images one by one."""
        import tensorflow as tf

        batches = tf.data.Dataset.from_tensor_slices((self.images[order], self.targets[order]))
        history = self.model.fit(batches.batch(self.problem.batch_size), shuffle=False, verbose=0)
        return float(history.history["loss"][0])


class KerasJax(Keras):
    """The same code on JAX, but for the loss, which is taken of logits.

    Given probabilities, Keras clips them to [1e-7, 1 - 1e-7] before it takes their logarithm, and where it does the
    gradient is zero: another network, seen as up to 11 different predictions of 10,000. On TensorFlow it looks behind
    the softmax for the logits and does not; on its other engines it has to be given them.
    """

    name: ClassVar[str] = "keras-jax"
    packages: ClassVar[tuple[str, ...]] = ("keras", "jax", "jaxlib")
    modules: ClassVar[tuple[str, ...]] = ("jax", "keras")
    extra: ClassVar[str] = "keras-jax"
    from_logits: ClassVar[bool] = True

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """The engine, and what that has to be told."""
        return {"KERAS_BACKEND": "jax", **jax_environment(device, dtype)}

    def _use_gpu(self) -> None:
        """See that the engine has one."""
        use_jax_gpu()

    def device_memory_bytes(self) -> int | None:
        """Of the engine's own allocator."""
        return jax_memory_bytes()

    def synchronize(self) -> None:
        """As for TensorFlow."""
        import jax

        jax.block_until_ready([variable.value for variable in self.model.variables])


class KerasTorch(Keras):
    """The same code on PyTorch, its loss taken of logits for the reason that `KerasJax` gives.

    On this engine Keras 3.15 rounds the products of float64 matrices to float32: there is no float64 to check.
    """

    name: ClassVar[str] = "keras-torch"
    packages: ClassVar[tuple[str, ...]] = ("keras", "torch")
    modules: ClassVar[tuple[str, ...]] = ("torch", "keras")
    extra: ClassVar[str] = "keras-torch"
    from_logits: ClassVar[bool] = True
    dtypes: ClassVar[tuple[Dtype, ...]] = ("float32",)

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """The engine; on the CPU without a GPU, even where there is one, for Keras would take it."""
        on_device = FULL_FLOAT32 if device == "cuda" else {"CUDA_VISIBLE_DEVICES": "-1"}
        return {"KERAS_BACKEND": "torch", **on_device}

    def _use_gpu(self) -> None:
        """Without one Keras would train on the CPU, and say nothing.

        Raises:
            RuntimeError: PyTorch sees none.
        """
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("this PyTorch sees no GPU: install its CUDA build")

    def device_memory_bytes(self) -> int | None:
        """Of the engine's own allocator."""
        import torch

        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None

    def synchronize(self) -> None:
        """As for TensorFlow."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
