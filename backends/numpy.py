"""The reference: the whole network written out in NumPy, so that the mathematics can be read here.

In float32 it is the yardstick of every run; in float64 it is the oracle that `lockstep verify` checks all others
against.
"""

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import Backend, FloatArray, IntArray, NDArray, Problem, Split, Style, Weights

CHUNK = 131_072
"""Parameters updated at a time: 512 KiB of each array stay in the caches, and calls cost little beside their work."""


class NumPy(Backend):
    """Forward, backward and Adam by hand; in place, because new arrays cost more than the arithmetic in them."""

    name: ClassVar[str] = "numpy"
    style: ClassVar[Style] = "idiomatic"
    packages = ("numpy",)
    modules = ("numpy",)

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Lay all parameters out in one vector, so that Adam is one loop; the kernels and biases are views of it."""
        self.problem = problem
        self.images = train.images
        self.targets = np.eye(problem.classes, dtype=problem.dtype)[train.labels]
        self.parameters, self.parameter = self._flat(weights)
        self.gradients, self.gradient = self._flat(weights)
        self.m = np.zeros_like(self.parameters)
        self.v = np.zeros_like(self.parameters)
        self.step = 0
        self.parameters[:] = np.concatenate([np.ravel(array) for array in weights])
        self.scratch = np.empty(CHUNK, problem.dtype)

    def _flat(self, weights: Weights) -> tuple[FloatArray, Weights]:
        """A vector as long as all parameters together, and views of it in the parameters' shapes."""
        vector = np.empty(sum(array.size for array in weights), self.problem.dtype)
        ends = np.cumsum([array.size for array in weights])[:-1]
        parts = np.split(vector, ends)
        return vector, Weights(*(part.reshape(array.shape) for part, array in zip(parts, weights, strict=True)))

    def train(self, order: IntArray) -> float:
        """One Adam step per batch; the loss is summed over images and divided once."""
        size = self.problem.batch_size
        losses = 0.0
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            losses += self._gradients(self.images[batch], self.targets[batch])
            self._adam()
        return losses / len(order)

    def _gradients(self, x: FloatArray, targets: FloatArray) -> float:
        """Forward and backward: fill `self.gradient`, return the sum of the images' losses."""
        x = x.astype(self.problem.dtype, copy=False)
        w, g = self.parameter, self.gradient
        hidden = softmax(x @ w.hidden_kernel + w.hidden_bias)
        output = softmax(hidden @ w.output_kernel + w.output_bias)
        loss = -np.log(np.maximum(output[targets == 1], np.finfo(output.dtype).tiny)).sum()

        # The derivative of mean cross-entropy after softmax, by the softmax's inputs, is (output - targets) / n.
        delta = (output - targets) / len(x)
        np.matmul(hidden.T, delta, out=g.output_kernel)
        delta.sum(axis=0, out=g.output_bias)

        # Back through the hidden softmax h: its Jacobian is diag(h) - h h', so each unit depends on all the others.
        delta = delta @ w.output_kernel.T
        delta -= (delta * hidden).sum(axis=1, keepdims=True)
        delta *= hidden
        np.matmul(x.T, delta, out=g.hidden_kernel)
        delta.sum(axis=0, out=g.hidden_bias)
        return float(loss)

    def _adam(self) -> None:
        """Update all parameters, a chunk at a time: a chunk's arrays stay in the cache from its first line to its last.

        `m` and `v` are kept divided by (1 - beta_1) and (1 - beta_2), as plain decaying sums: that saves three of the
        thirteen passes over the parameters. The factors return as constants, in `alpha` and `epsilon`.
        """
        problem = self.problem
        self.step += 1
        scale_v = (1 - problem.beta_2) ** 0.5
        scale_m = (1 - problem.beta_1) / scale_v
        correction = (1 - problem.beta_2**self.step) ** 0.5 / (1 - problem.beta_1**self.step)
        alpha = problem.learning_rate * correction * scale_m
        epsilon = problem.epsilon / scale_v
        for start in range(0, len(self.parameters), CHUNK):
            chunk = slice(start, start + CHUNK)
            w, g, m, v = self.parameters[chunk], self.gradients[chunk], self.m[chunk], self.v[chunk]
            update = self.scratch[: len(w)]
            # m = beta_1 * m + g
            m *= problem.beta_1
            m += g
            # v = beta_2 * v + g**2
            g *= g
            v *= problem.beta_2
            v += g
            # w -= alpha * m / (sqrt(v) + epsilon)
            np.sqrt(v, out=update)
            update += epsilon
            np.divide(m, update, out=update)
            update *= alpha
            w -= update

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """The forward pass alone."""
        w = self.parameter
        hidden = softmax(images.astype(self.problem.dtype, copy=False) @ w.hidden_kernel + w.hidden_bias)
        return softmax(hidden @ w.output_kernel + w.output_bias)

    def weights(self) -> Weights:
        """Copies of the views."""
        return Weights(*(array.copy() for array in self.parameter))


def softmax(z: FloatArray) -> FloatArray:
    """exp(z) / sum(exp(z)) along each row, in place.

    The row's largest value is taken off first, so that exp stays finite.
    """
    z -= z.max(axis=1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(axis=1, keepdims=True)
    return z
