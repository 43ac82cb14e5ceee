"""The Problem in a framework of your own: a complete backend, in NumPy, that `lockstep verify` passes as it is.

Make it yours step by step, and let `lockstep verify` say after each step whether it is the same network still. What to
replace says REPLACE; the docstrings are the contract. The harness owns the data, the initial weights, the order, the
clock and the metrics: nothing here shuffles, times, scores, prints or reads files.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import (
    Backend,
    Defaults,
    Dtype,
    FloatArray,
    IntArray,
    NDArray,
    Problem,
    Split,
    Style,
    Weights,
)


class MyBackend(Backend):
    """REPLACE: what of the framework it uses, and what the framework needed to become the Problem."""

    name: ClassVar[str] = "my-backend"
    style: ClassVar[Style] = "idiomatic"  # as the framework's documentation writes it; "tuned": the fastest it offers
    packages = ("numpy",)  # REPLACE: the distributions whose versions go into the record, such as ("torch",)
    modules = ("numpy",)  # REPLACE: what is imported, and timed, before `build`, such as ("torch",)
    devices = ("cpu",)
    dtypes: ClassVar[tuple[Dtype, ...]] = ("float32", "float64")  # REPLACE: without what the framework cannot do

    @classmethod
    def environment(cls, threads: int, device: str, dtype: Dtype) -> Mapping[str, str]:
        """Environment variables to set before the worker imports anything; asked without importing the framework."""
        return {}

    @classmethod
    def native_defaults(cls) -> Defaults:
        """REPLACE: how the framework initialises, its Adam's epsilon, its L2 penalty, if nobody tells it otherwise."""
        return Defaults()

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Start afresh, at step 0, from exactly these weights, which are copied, not kept; kernels are (in, out)."""
        # REPLACE: `import framework` here, and in every method that needs it, never at the top of the file.
        self.problem = problem
        self.images = train.images.astype(problem.dtype)
        self.targets = np.eye(problem.classes, dtype=problem.dtype)[train.labels]
        self.parameters = [array.copy() for array in weights]
        self.m = [np.zeros_like(array) for array in weights]
        self.v = [np.zeros_like(array) for array in weights]
        self.step = 0

    def train(self, order: IntArray) -> float:
        """Take one Adam step per consecutive batch of `order`, the last of which may be short.

        Returns:
            The mean over all images of `order` of the cross-entropy that each had before its batch's step.
        """
        losses = 0.0
        for start in range(0, len(order), self.problem.batch_size):
            batch = order[start : start + self.problem.batch_size]
            loss, gradients = self._gradients(self.images[batch], self.targets[batch])
            self._adam(gradients)
            losses += loss * len(batch)
        return losses / len(order)

    def _gradients(self, images: FloatArray, targets: FloatArray) -> tuple[float, list[FloatArray]]:
        """REPLACE by the framework's automatic differentiation: the batch's mean loss and its gradients."""
        hidden, output = self._forward(images)
        loss = -np.log((output * targets).sum(axis=1)).mean()
        at_output = (output - targets) / len(images)
        at_hidden = at_output @ self.parameters[2].T
        at_hidden = hidden * (at_hidden - (at_hidden * hidden).sum(axis=1, keepdims=True))
        return float(loss), [images.T @ at_hidden, at_hidden.sum(axis=0), hidden.T @ at_output, at_output.sum(axis=0)]

    def _adam(self, gradients: list[FloatArray]) -> None:
        """REPLACE by the framework's Adam, with this epsilon in this place.

        Keras and scikit-learn have this form. PyTorch, optax and others add epsilon to `sqrt(v / (1 - beta_2**t))`:
        give these `problem.epsilon_at(t, "corrected")` at step t = 1, 2, ...
        """
        problem = self.problem
        self.step += 1
        alpha = problem.learning_rate * (1 - problem.beta_2**self.step) ** 0.5 / (1 - problem.beta_1**self.step)
        for w, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
            m += (1 - problem.beta_1) * (g - m)
            v += (1 - problem.beta_2) * (g * g - v)
            w -= alpha * m / (np.sqrt(v) + problem.epsilon)

    def _forward(self, images: FloatArray) -> tuple[FloatArray, FloatArray]:
        """REPLACE by the framework's layers: the hidden layer's activations and the output's, both softmax."""
        hidden_kernel, hidden_bias, output_kernel, output_bias = self.parameters
        hidden = softmax(images @ hidden_kernel + hidden_bias)
        return hidden, softmax(hidden @ output_kernel + output_bias)

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """Class probabilities, float (n, classes), of images, float32 (n, inputs); nothing is trained by it."""
        return self._forward(images.astype(self.problem.dtype))[1]

    def weights(self) -> Weights:
        """The current parameters, as copies in NumPy arrays of the Problem's dtype; kernels are (in, out)."""
        return Weights(*(array.copy() for array in self.parameters))

    def synchronize(self) -> None:
        """Wait until the device has finished; nothing to do on the CPU."""


def softmax(z: FloatArray) -> FloatArray:
    """exp(z) / sum(exp(z)) along each row; the row's largest value is taken off first, so that exp stays finite."""
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    probabilities: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
