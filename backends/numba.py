"""Numba: the whole step fused by hand, the floor made real; and a variant that skips the images' zeros.

What a framework could do at best, and how. A step reads and writes the large kernel and its two moments once:

* The hidden layer is cut into as many parts as there are threads, by columns. A thread has a part's kernel, biases,
  moments and activations to itself, and its part of a batch's activations stays in its nearest cache.
* As soon as some rows of the kernel are updated they are used for the forward pass of the next batch.
* The derivative of the hidden softmax needs, of each image, the sum of `h * dh` over all parts. It equals the sum of
  `delta * logits` over the classes (without the output's biases), because `dh = delta @ W2'` and `logits = h @ W2`. So
  threads meet once a step, to add up what they know of ten logits.
"""

import math
from typing import Any, ClassVar

import numpy as np

from lockstep_bench.backends.base import Backend, FloatArray, IntArray, NDArray, Problem, Split, Style, Weights

ROWS = 4
"""Kernel rows that are updated before the next batch goes forward through them: each activation is loaded once for all.

The loops below write them out.
"""
IMAGES: tuple[int, ...] = (5, 4, 3, 2, 1)
"""How many images go forward through these rows at a time: the first that divides a batch."""
LANES = 8
"""Parts are padded to a multiple of so many columns, an AVX register: with a bias of minus infinity, so that h = 0."""


class Numba(Backend):
    """Dense arithmetic throughout."""

    name: ClassVar[str] = "numba"
    style: ClassVar[Style] = "tuned"
    packages = ("numba", "numpy")
    modules = ("numba",)
    extra = "numba"
    sparse: ClassVar[bool] = False

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Cut the parameters into parts and compile."""
        self.problem, self.threads = problem, threads
        self.images, self.labels = train.images.astype(problem.dtype, copy=False), train.labels
        self.shape = threads, -(-problem.inputs // ROWS) * ROWS, -(-problem.hidden // (threads * LANES)) * LANES
        _, rows, columns = self.shape
        classes = problem.classes
        self.hidden_kernel, self.hidden_bias, self.output_kernel = (
            np.stack([_moments(part) for part in parts])
            for parts in (
                self._parts(weights.hidden_kernel, (rows, columns), 0),
                self._parts(weights.hidden_bias[None], (1, columns), -np.inf),
                self._parts(weights.output_kernel.T, (classes, columns), 0),
            )
        )
        self.output_bias = _moments(weights.output_bias[None].copy())
        self.step = 0
        self.touched = np.zeros((threads, rows), bool)
        self.run = _compiled(problem.batch_size, rows, columns, classes, self.sparse, np.dtype(problem.dtype).type)
        none = np.empty(0, np.int64)
        none.flags.writeable = False  # as an order is: Numba compiles for types
        self._run(none)

    def _parts(self, array: FloatArray, shape: tuple[int, int], padding: float) -> list[FloatArray]:
        """Cut the last axis into parts of equal width."""
        parts, _, columns = self.shape
        padded = np.full((shape[0], parts * columns), padding, self.problem.dtype)
        padded[: array.shape[0], : array.shape[1]] = array
        return [np.ascontiguousarray(part) for part in np.split(padded, parts, axis=1)]

    def train(self, order: IntArray) -> float:
        """All steps in one call."""
        return self._run(order) / len(order)

    def _run(self, order: IntArray) -> float:
        problem = self.problem
        steps = -(-len(order) // problem.batch_size)
        # m and v are kept as plain decaying sums, without (1 - beta_1) and (1 - beta_2), as in the NumPy backend.
        scale_v = (1 - problem.beta_2) ** 0.5
        scale_m = (1 - problem.beta_1) / scale_v
        alphas = [scale_m * problem.alpha(self.step + step) for step in range(1, steps + 1)]
        self.step += steps
        constants = np.array([problem.beta_1, problem.beta_2, problem.epsilon / scale_v], problem.dtype)
        parameters = self.hidden_kernel, self.hidden_bias, self.output_kernel, self.output_bias
        state = *parameters, self.touched
        return float(self.run(self.images, self.labels, order, np.array(alphas, problem.dtype), constants, *state))

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        """By NumPy: only training is fused."""
        from lockstep_bench.backends.numpy import softmax

        w = self.weights()
        hidden = softmax(images.astype(self.problem.dtype, copy=False) @ w.hidden_kernel + w.hidden_bias)
        return softmax(hidden @ w.output_kernel + w.output_bias)

    def weights(self) -> Weights:
        """The parts put together again."""
        problem = self.problem
        hidden_kernel, hidden_bias, output_kernel = (
            np.concatenate(parts[:, 0], axis=1) for parts in (self.hidden_kernel, self.hidden_bias, self.output_kernel)
        )
        return Weights(
            hidden_kernel[: problem.inputs, : problem.hidden].copy(),
            hidden_bias[0, : problem.hidden].copy(),
            output_kernel[:, : problem.hidden].T.copy(),
            self.output_bias[0, 0].copy(),
        )


class NumbaSparse(Numba):
    """The same without the multiplications by pixels that are exactly zero, 81 % of MNIST's; the sums are the same.

    Rows of the kernel whose pixel has been zero in every image so far have neither gradient nor moments: they are left
    out altogether.
    """

    name: ClassVar[str] = "numba-sparse"
    sparse: ClassVar[bool] = True


def _moments(array: FloatArray) -> FloatArray:
    """A parameter and its two moments, which are zero: (3, rows, columns)."""
    return np.stack([array, np.zeros_like(array), np.zeros_like(array)])


def _compiled(batch: int, rows: int, columns: int, classes: int, sparse: bool, dtype: Any) -> Any:
    """The training loop for these sizes; as constants, so that LLVM unrolls and vectorises the loops over them."""
    from numba import njit, prange

    zero, one = dtype(0), dtype(1)
    at_once = next(count for count in IMAGES if batch % count == 0)
    # Sums may be reordered, so that they can be vectorised; no other liberty is taken.
    compiled = njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")

    def adam_of(count: int) -> Any:
        @compiled
        def adam(parameter, row, gradient, alpha, constants):  # type: ignore[no-untyped-def]
            w, m, v = parameter[0, row], parameter[1, row], parameter[2, row]
            beta_1, beta_2, epsilon = constants[0], constants[1], constants[2]
            for j in range(count):
                g = gradient[j]
                first = beta_1 * m[j] + g
                second = beta_2 * v[j] + g * g
                m[j], v[j] = first, second
                w[j] -= alpha * first / (math.sqrt(second) + epsilon)

        return adam

    adam, adam_output = adam_of(columns), adam_of(classes)

    @compiled
    def dense_update(kernel, row, x, delta, gradient, touched, alpha, constants):  # type: ignore[no-untyped-def]
        for k in range(row, row + ROWS, 2):  # two rows at a time, so that each delta is loaded once for both
            for j in range(columns):
                first = second = zero
                for b in range(batch):
                    d = delta[b * columns + j]
                    first += x[b, k] * d
                    second += x[b, k + 1] * d
                gradient[0, j], gradient[1, j] = first, second
            adam(kernel, k, gradient[0], alpha, constants)
            adam(kernel, k + 1, gradient[1], alpha, constants)

    @compiled
    def dense_forward(kernel, row, x, z):  # type: ignore[no-untyped-def]
        w = kernel[0, row : row + ROWS].reshape(-1)
        for group in range(0, batch, at_once):
            for j in range(columns):
                w_0, w_1, w_2, w_3 = w[j], w[columns + j], w[2 * columns + j], w[3 * columns + j]
                for b in range(group, group + at_once):
                    z[b * columns + j] += (
                        x[b, row] * w_0 + x[b, row + 1] * w_1 + x[b, row + 2] * w_2 + x[b, row + 3] * w_3
                    )

    @compiled
    def sparse_update(kernel, row, x, delta, gradient, touched, alpha, constants):  # type: ignore[no-untyped-def]
        for k in range(row, row + ROWS):
            gradient[0] = 0
            for b in range(batch):
                pixel = x[b, k]
                if pixel != 0:
                    touched[k] = True
                    for j in range(columns):
                        gradient[0, j] += pixel * delta[b * columns + j]
            if touched[k]:
                adam(kernel, k, gradient[0], alpha, constants)

    @compiled
    def sparse_forward(kernel, row, x, z):  # type: ignore[no-untyped-def]
        for k in range(row, row + ROWS):
            w = kernel[0, k]
            for b in range(batch):
                pixel = x[b, k]
                if pixel != 0:
                    for j in range(columns):
                        z[b * columns + j] += pixel * w[j]

    update, forward = (sparse_update, sparse_forward) if sparse else (dense_update, dense_forward)

    @compiled
    def backward(output_kernel, hidden_bias, h, delta_out, share, coupling, delta, gradient, alpha, constants):  # type: ignore[no-untyped-def]
        """From the derivative by the logits to that by the hidden layer's inputs; update all but the large kernel."""
        for b in range(batch):
            for j in range(columns):
                total = -coupling[b]
                for c in range(classes):
                    total += delta_out[b, c] * output_kernel[0, c, j]
                h[b * columns + j] *= share[b]
                delta[b * columns + j] = h[b * columns + j] * total
        for c in range(classes):
            for j in range(columns):
                total = h[j] * delta_out[0, c]
                for b in range(1, batch):
                    total += h[b * columns + j] * delta_out[b, c]
                gradient[0, j] = total
            adam(output_kernel, c, gradient[0], alpha, constants)
        for j in range(columns):
            total = delta[j]
            for b in range(1, batch):
                total += delta[b * columns + j]
            gradient[0, j] = total
        adam(hidden_bias, 0, gradient[0], alpha, constants)

    @compiled
    def activate(output_kernel, hidden_bias, z, top, total, logits):  # type: ignore[no-untyped-def]
        """exp(z - top) in place, its sum, and what it adds to the logits: a part's share of a softmax."""
        for b in range(batch):
            row = z[b * columns : (b + 1) * columns]
            largest = row[0] + hidden_bias[0, 0, 0]
            for j in range(columns):
                row[j] += hidden_bias[0, 0, j]
                largest = max(largest, row[j])
            top[b] = largest
            summed = zero
            for j in range(columns):
                row[j] = math.exp(row[j] - largest)
                summed += row[j]
            total[b] = summed
            for c in range(classes):
                logit = zero
                for j in range(columns):
                    logit += row[j] * output_kernel[0, c, j]
                logits[b, c] = logit

    @compiled
    def gather(images, batch_images, x):  # type: ignore[no-untyped-def]
        """The images of a batch; a short one is filled up with black ones, whose deltas are zero."""
        for b in range(batch):
            if b < len(batch_images):
                x[b, : images.shape[1]] = images[batch_images[b]]
            else:
                x[b] = 0

    @compiled
    def output(labels, top, total, logits, bias, share, delta, coupling, alpha, constants):  # type: ignore[no-untyped-def]
        """Where the parts meet: the sum of the batch's losses, and the derivative by the logits; update the biases."""
        images = len(labels)
        loss = 0.0
        for b in range(images):
            largest = top[:, b].max()
            share[:, b] = np.exp(top[:, b] - largest)
            share[:, b] /= (share[:, b] * total[:, b]).sum()
            for c in range(classes):
                delta[b, c] = (share[:, b] * logits[:, b, c]).sum()
            unbiased = delta[b].copy()
            delta[b] += bias[0, 0]
            delta[b] -= delta[b].max()
            log_sum = np.log(np.exp(delta[b]).sum())
            loss += log_sum - delta[b, labels[b]]
            delta[b] = np.exp(delta[b] - log_sum)
            delta[b, labels[b]] -= one
            delta[b] /= images
            coupling[b] = (delta[b] * unbiased).sum()
        share[:, images:] = 0
        delta[images:] = 0
        coupling[images:] = 0
        adam_output(bias, 0, delta.sum(axis=0), alpha, constants)
        return loss

    @njit(parallel=True, error_model="numpy")
    def run(images, labels, order, alphas, constants, hidden_kernel, hidden_bias, output_kernel, output_bias, touched):  # type: ignore[no-untyped-def]
        parts = len(hidden_kernel)
        x = np.zeros((batch, rows), dtype)
        z, delta = np.empty((parts, batch * columns), dtype), np.empty((parts, batch * columns), dtype)
        top, total = np.empty((parts, batch), dtype), np.empty((parts, batch), dtype)
        logits, share = np.empty((parts, batch, classes), dtype), np.empty((parts, batch), dtype)
        delta_out, coupling = np.empty((batch, classes), dtype), np.empty(batch, dtype)
        gradient = np.empty((parts, 2, columns), dtype)
        loss = 0.0
        for step in range(len(alphas) + 1):
            # One pass updates with the batch before and goes forward with this; the first only the latter, and so on.
            now, before = order[step * batch : (step + 1) * batch], order[(step - 1) * batch : step * batch]
            if step:
                alpha = alphas[step - 1]
                loss += output(
                    labels[before], top, total, logits, output_bias, share, delta_out, coupling, alpha, constants
                )
            x_before = x.copy()
            gather(images, now, x)
            for p in prange(parts):
                if step:
                    backward(
                        output_kernel[p],
                        hidden_bias[p],
                        z[p],
                        delta_out,
                        share[p],
                        coupling,
                        delta[p],
                        gradient[p],
                        alphas[step - 1],
                        constants,
                    )
                z[p] = 0
                for row in range(0, rows, ROWS):
                    if step:
                        update(
                            hidden_kernel[p],
                            row,
                            x_before,
                            delta[p],
                            gradient[p],
                            touched[p],
                            alphas[step - 1],
                            constants,
                        )
                    forward(hidden_kernel[p], row, x, z[p])
                activate(output_kernel[p], hidden_bias[p], z[p], top[p], total[p], logits[p])
        return loss

    return run
