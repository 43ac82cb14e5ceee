"""Numba: the whole step fused by hand, the floor made real; and a variant that skips the images' zeros.

What a framework could do at best, and how. A step reads and writes the large kernel and its two moments once:

* The hidden layer is cut into parts by columns, one or two for each thread. A thread has a part's kernel, biases,
  moments and activations to itself, and a part's activations and deltas of a batch stay in its nearest cache.
* As soon as some rows of the kernel are updated they are used for the forward pass of the next batch.
* The derivative of the hidden softmax needs, of each image, the sum of `h * dh` over all parts. It equals the sum of
  `delta * logits` over the classes (without the output's biases), because `dh = delta @ W2'` and `logits = h @ W2`. So
  threads meet once a step, to add up what they know of ten logits.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lockstep_bench.backends.base import Backend, Dtype, FloatArray, IntArray, NDArray, Problem, Split, Style, Weights

ROWS, IMAGES = 4, 3
"""The tile of the large products: so many kernel rows by so many images at a time, written out in the loops below.

Either product loads what it adds up to once for a tile, whose 12 pixels stay in registers all along the columns.
Rows and batches are padded to a multiple with zeros.
"""
LINE = 64
"""Bytes of a cache line, and of the widest vector register: arrays begin at one, and parts are padded to whole ones.

The columns added have half the lowest number as their bias, so that h = 0. Not minus infinity: a part that is
nothing but padding would take it from itself.
"""


class Numba(Backend):
    """Dense arithmetic throughout.

    Attributes:
        sparse: whether to leave out multiplications by zero.
        parts: that each thread has; of 196 columns with two threads and two parts, whose activations and deltas of a
            batch are 24 KB together.
    """

    name: ClassVar[str] = "numba"
    style: ClassVar[Style] = "tuned"
    packages = ("numba", "numpy")
    modules = ("numba",)
    extra = "numba"
    sparse: ClassVar[bool] = False
    parts: ClassVar[int] = 2

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        """Cut the parameters into parts and compile."""
        self.problem = problem
        self.images, self.labels = train.images.astype(problem.dtype, copy=False), train.labels
        lanes = LINE // np.dtype(problem.dtype).itemsize
        parts = self.parts * threads
        columns = _up(-(-problem.hidden // parts), lanes)
        rows, batch, classes = _up(problem.inputs, ROWS), _up(problem.batch_size, IMAGES), problem.classes
        self.shape = parts, rows, columns
        nothing = float(np.finfo(problem.dtype).min) / 2
        self.hidden_kernel, self.hidden_bias, self.output_kernel = (
            _aligned(np.stack([_moments(part) for part in cut]))
            for cut in (
                self._parts(weights.hidden_kernel, (rows, columns), 0),
                self._parts(weights.hidden_bias[None], (1, columns), nothing),
                self._parts(weights.output_kernel.T, (classes, columns), 0),
            )
        )
        self.output_bias = _moments(weights.output_bias[None].copy())
        self.step = 0
        self.touched = np.zeros((parts, rows), bool)
        self.x = np.zeros((2, batch, rows), problem.dtype)
        self.z, self.delta, self.gradient = (
            _aligned(np.zeros((parts, size * columns), problem.dtype)) for size in (batch, batch, ROWS)
        )
        self.run = _compiled(Sizes(problem.batch_size, batch, rows, columns, classes), self.sparse, problem.dtype)
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
        state = *parameters, self.touched, self.x, self.z, self.delta, self.gradient
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
    out altogether. With a fifth of the arithmetic, what each part costs by itself counts for more: a thread has one.
    """

    name: ClassVar[str] = "numba-sparse"
    sparse: ClassVar[bool] = True
    parts: ClassVar[int] = 1


def _moments(array: FloatArray) -> FloatArray:
    """A parameter and its two moments, which are zero: (3, rows, columns)."""
    return np.stack([array, np.zeros_like(array), np.zeros_like(array)])


def _up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple


def _aligned(array: FloatArray) -> FloatArray:
    """A copy that begins at a cache line, so that no vector straddles two; NumPy promises 16 bytes."""
    memory = np.empty(array.nbytes + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


class Sizes(NamedTuple):
    """What the loops below are compiled for; as constants, so that LLVM unrolls and vectorises them."""

    batch_size: int
    batch: int  # padded
    rows: int  # of a part's kernel, padded
    columns: int  # of a part, padded
    classes: int


def _jit(function: Callable[..., Any]) -> Any:
    """Compile for one thread. Sums may be reordered, so that they can be vectorised; no other liberty is taken."""
    from numba import njit

    return njit(function, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


@cache  # a second build need not compile the same once more
def _compiled(sizes: Sizes, sparse: bool, precision: Dtype) -> Any:
    """The training loop: all threads, all steps of an order."""
    from numba import njit, prange

    batch_size, batch, _, _, classes = sizes
    dtype: Any = np.dtype(precision).type
    zero = dtype(0)
    gather, work, output = _gather(batch), _work(sizes, sparse, dtype), _output(classes, dtype)

    @njit(parallel=True, error_model="numpy")
    def run(  # type: ignore[no-untyped-def]
        images,
        labels,
        order,
        alphas,
        constants,
        hidden_kernel,
        hidden_bias,
        output_kernel,
        output_bias,
        touched,
        x,
        z,
        delta,
        gradient,
    ):
        parts = len(hidden_kernel)
        top, total = np.empty((parts, batch), dtype), np.empty((parts, batch), dtype)
        logits, share = np.empty((parts, batch, classes), dtype), np.empty((parts, batch), dtype)
        delta_out, coupling = np.empty((batch, classes), dtype), np.empty(batch, dtype)
        loss = 0.0
        for step in range(len(alphas) + 1):
            now = order[step * batch_size : (step + 1) * batch_size]
            alpha = zero
            if step:
                before = order[(step - 1) * batch_size : step * batch_size]
                alpha = alphas[step - 1]
                loss += output(
                    labels[before], top, total, logits, output_bias, share, delta_out, coupling, alpha, constants
                )
            gather(images, now, x[step % 2])
            for p in prange(parts):
                work(
                    step > 0,
                    hidden_kernel[p],
                    hidden_bias[p],
                    output_kernel[p],
                    touched[p],
                    x[step % 2],
                    x[(step + 1) % 2],
                    z[p],
                    delta[p],
                    gradient[p],
                    top[p],
                    total[p],
                    logits[p],
                    delta_out,
                    share[p],
                    coupling,
                    alpha,
                    constants,
                )
        return loss

    return run


def _work(sizes: Sizes, sparse: bool, dtype: Any) -> Any:
    """A thread's part of a step."""
    rows, columns = sizes.rows, sizes.columns
    update, forward = _sparse(sizes) if sparse else _dense(sizes)
    backward, activate = _backward(sizes), _activate(sizes, dtype)

    @_jit
    def work(  # type: ignore[no-untyped-def]
        update_first,
        hidden_kernel,
        hidden_bias,
        output_kernel,
        touched,
        x,
        x_before,
        z,
        delta,
        gradient,
        top,
        total,
        logits,
        delta_out,
        share,
        coupling,
        alpha,
        constants,
    ):
        """Update with the batch before, if there is one, and go forward with the next."""
        if update_first:
            backward(output_kernel, hidden_bias, z, delta_out, share, coupling, delta, gradient, alpha, constants)
        z[:] = 0
        for row in range(0, rows, ROWS):
            if update_first:
                update(hidden_kernel, row, x_before, delta, gradient, touched, alpha, constants)
            forward(hidden_kernel, row, x, z)
        activate(output_kernel, hidden_bias, z, top, total, logits, gradient[:columns])

    return work


def _gather(batch: int) -> Any:
    """The images of a batch; a short one is filled up with black ones, whose deltas are zero."""

    @_jit
    def gather(images, batch_images, x):  # type: ignore[no-untyped-def]
        for b in range(batch):
            if b < len(batch_images):
                x[b, : images.shape[1]] = images[batch_images[b]]
            else:
                x[b] = 0

    return gather


def _dense(sizes: Sizes) -> tuple[Any, Any]:
    """Some rows of the large kernel: updated with the batch before, and used for the next."""
    _, batch, _, columns, _ = sizes
    adam = _adam(columns)

    @_jit
    def update(kernel, row, x, delta, gradient, touched, alpha, constants):  # type: ignore[no-untyped-def]
        gradient[:] = 0
        for b in range(0, batch, IMAGES):
            d = delta[b * columns : (b + IMAGES) * columns]
            for j in range(columns):
                d_0, d_1, d_2 = d[j], d[columns + j], d[2 * columns + j]
                for k in range(ROWS):
                    gradient[k * columns + j] += x[b, row + k] * d_0 + x[b + 1, row + k] * d_1 + x[b + 2, row + k] * d_2
        for k in range(ROWS):
            adam(kernel, row + k, gradient[k * columns : (k + 1) * columns], alpha, constants)

    @_jit
    def forward(kernel, row, x, z):  # type: ignore[no-untyped-def]
        w = kernel[0, row : row + ROWS].reshape(-1)
        for group in range(0, batch, IMAGES):
            for j in range(columns):
                w_0, w_1, w_2, w_3 = w[j], w[columns + j], w[2 * columns + j], w[3 * columns + j]
                for b in range(group, group + IMAGES):
                    z[b * columns + j] += (
                        x[b, row] * w_0 + x[b, row + 1] * w_1 + x[b, row + 2] * w_2 + x[b, row + 3] * w_3
                    )

    return update, forward


def _sparse(sizes: Sizes) -> tuple[Any, Any]:
    """The same without the pixels that are zero, and without the rows that no pixel has touched."""
    _, batch, _, columns, _ = sizes
    adam = _adam(columns)

    @_jit
    def update(kernel, row, x, delta, gradient, touched, alpha, constants):  # type: ignore[no-untyped-def]
        g = gradient[:columns]
        for k in range(row, row + ROWS):
            g[:] = 0
            for b in range(batch):
                pixel = x[b, k]
                if pixel != 0:
                    touched[k] = True
                    for j in range(columns):
                        g[j] += pixel * delta[b * columns + j]
            if touched[k]:
                adam(kernel, k, g, alpha, constants)

    @_jit
    def forward(kernel, row, x, z):  # type: ignore[no-untyped-def]
        for k in range(row, row + ROWS):
            w = kernel[0, k]
            for b in range(batch):
                pixel = x[b, k]
                if pixel != 0:
                    for j in range(columns):
                        z[b * columns + j] += pixel * w[j]

    return update, forward


def _backward(sizes: Sizes) -> Any:
    """From the derivative by the logits to that by the hidden layer's inputs; update all but the large kernel."""
    _, batch, _, columns, classes = sizes
    adam = _adam(columns)

    @_jit
    def backward(output_kernel, hidden_bias, h, delta_out, share, coupling, delta, gradient, alpha, constants):  # type: ignore[no-untyped-def]
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
                gradient[j] = total
            adam(output_kernel, c, gradient[:columns], alpha, constants)
        for j in range(columns):
            total = delta[j]
            for b in range(1, batch):
                total += delta[b * columns + j]
            gradient[j] = total
        adam(hidden_bias, 0, gradient[:columns], alpha, constants)

    return backward


def _activate(sizes: Sizes, dtype: Any) -> Any:
    """exp(z - top) in place, its sum, and what it adds to the logits: a part's share of a softmax."""
    _, batch, _, columns, classes = sizes
    exponential = _exponential(columns, dtype)
    zero = dtype(0)

    @_jit
    def activate(output_kernel, hidden_bias, z, top, total, logits, scratch):  # type: ignore[no-untyped-def]
        for b in range(batch):
            row = z[b * columns : (b + 1) * columns]
            largest = row[0] + hidden_bias[0, 0, 0]
            for j in range(columns):
                row[j] += hidden_bias[0, 0, j]
                largest = max(largest, row[j])
            top[b] = largest
            summed = zero
            for j in range(columns):
                row[j] -= largest
            exponential(row, scratch)
            for j in range(columns):
                summed += row[j]
            total[b] = summed
            for c in range(classes):
                logit = zero
                for j in range(columns):
                    logit += row[j] * output_kernel[0, c, j]
                logits[b, c] = logit

    return activate


def _exponential(columns: int, dtype: Any) -> Any:
    """exp(x) in place for x <= 0; in float32 as vectors, which math.exp is not.

    There it is 2**n * exp(r), with n an integer and |r| <= log(2) / 2: a float whose exponent bits are n, and a Taylor
    polynomial whose remainder is below r**8 / 8! = 5e-9. Below 2**-126, which is exp(-87.3), it is 0.
    """
    one, half, lowest = dtype(1), dtype(0.5), dtype(-88.2)
    per_log_2, log_2 = dtype(1 / math.log(2)), dtype(math.log(2))
    c_2, c_3, c_4, c_5, c_6, c_7 = (dtype(1 / math.factorial(i)) for i in range(2, 8))

    @_jit
    def float32(row, scratch):  # type: ignore[no-untyped-def]
        exponents = scratch.view(np.int32)
        for j in range(columns):
            x = max(row[j], lowest)
            n = math.floor(x * per_log_2 + half)
            r = x - n * log_2
            row[j] = one + r * (one + r * (c_2 + r * (c_3 + r * (c_4 + r * (c_5 + r * (c_6 + r * c_7))))))
            exponents[j] = (np.int32(n) + np.int32(127)) << np.int32(23)
        for j in range(columns):
            row[j] *= scratch[j]

    @_jit
    def float64(row, scratch):  # type: ignore[no-untyped-def]
        for j in range(columns):
            row[j] = math.exp(row[j])

    return float32 if dtype is np.float32 else float64


def _output(classes: int, dtype: Any) -> Any:
    """Where the parts meet: the sum of the batch's losses, and the derivative by the logits; update the biases."""
    adam = _adam(classes)
    one = dtype(1)

    @_jit
    def output(labels, top, total, logits, bias, share, delta, coupling, alpha, constants):  # type: ignore[no-untyped-def]
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
        adam(bias, 0, delta.sum(axis=0), alpha, constants)
        return loss

    return output


@cache
def _adam(count: int) -> Any:
    """Update a row of a parameter and of its moments."""

    @_jit
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
