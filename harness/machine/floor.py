"""The dense floor: the least time that a step of the Problem can take on this CPU with dense arithmetic.

Two things bound a step from below, each by a count that follows from the Problem and a rate that is measured here:

* floating-point operations over the peak rate of float32 matrix products;
* bytes that must move over the bandwidth of a working set of that size.

The larger of the two times is the floor. Both rates are measured in a turn of every round, seconds from those of the
backends and with the same threads, so that a slow minute raises the floor as it slows the backends.

The peak rate is that of NumPy's BLAS, and so of the kernels that it chose for this CPU, which summary.md names. What is
not in the floor: the square roots and divisions of Adam, which have no rate of products; softmax and loss; and what
caches and threads cost. A step of dense arithmetic that is faster shows that the floor is too high.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep_bench.harness.problem import Problem

SIZE = 1024
"""Rows and columns of the matrices whose product is timed: 4 MiB each, enough work to keep every core at its peak."""
REPEATS, PASSES = 3, 8
"""The best of so many counts, the bandwidth's of so many passes each: about a tenth of a second in all."""


class Rates(NamedTuple):
    """What the machine does at best: float32 operations of matrix products, and bytes read and written, a second."""

    flops_per_second: float
    bytes_per_second: float


def parameters(problem: Problem) -> int:
    """Weights and biases: for the default Problem 784 * 784 + 784 + 784 * 10 + 10 = 623,290."""
    return (problem.inputs + 1) * problem.hidden + (problem.hidden + 1) * problem.classes


def flops_per_step(problem: Problem) -> int:
    """Floating-point operations that the matrix products of one step take.

    With B images, I inputs, H hidden units and C classes, a product of (a, b) and (b, c) is 2abc operations:

        forward:    2BIH (hidden layer)            + 2BHC (output layer)
        backward:   2BIH (hidden kernel's gradient) + 2BHC (output kernel's gradient) + 2BHC (gradient of the hidden)

    together 4BIH + 6BHC: 37.6 million for the default Problem. Softmax, loss and Adam are left out, which keeps this a
    bound from below: they take a fifth as many again, to which a product's peak rate does not apply.
    """
    images, hidden = problem.batch_size, problem.hidden
    return 4 * images * problem.inputs * hidden + 6 * images * hidden * problem.classes


def bytes_per_step(problem: Problem) -> int:
    """The fewest bytes that one step reads and writes, in float32.

    Every parameter with its two moments must be read and written once, as Adam changes all of them in every step, even
    where the gradient is zero: 6 numbers of 4 bytes for each of P parameters. The batch must be read: B * I numbers.

    That is all that cannot be avoided. The gradient can be made piece by piece where it is used, as the product of
    15 images and their deltas, and never be written; and a piece of the parameters that was just updated can be used
    for the next batch's forward pass while it is still in a register. 15.0 million bytes for the default Problem.
    """
    return 4 * (6 * parameters(problem) + problem.batch_size * problem.inputs)


def floor_seconds(problem: Problem, rates: Rates) -> float:
    """The floor of one step: the larger of the two times."""
    return max(
        flops_per_step(problem) / rates.flops_per_second,
        bytes_per_step(problem) / rates.bytes_per_second,
    )


class Floor:
    """Measures both rates on this machine.

    Args:
        problem: whose parameters the working set is made of: them, two moments, and a gradient.
        threads: how many threads go through it; of the matrix product's the environment decides.
    """

    def __init__(self, problem: Problem, threads: int) -> None:
        random = np.random.default_rng(0)
        self.left, self.right = random.standard_normal((2, SIZE, SIZE), np.float32)
        self.product = np.empty((SIZE, SIZE), np.float32)
        arrays = np.ones((4, parameters(problem)), np.float32)
        self.parts = np.array_split(arrays, threads, axis=1)
        self.bytes = 2 * PASSES * arrays.nbytes
        self.pool = ThreadPoolExecutor(threads)

    def measure(self) -> Rates:
        """The best of several counts of either."""
        product = min(_seconds(self._multiply) for _ in range(REPEATS))
        passes = min(_seconds(self._pass) for _ in range(REPEATS))
        return Rates(2 * SIZE**3 / product, self.bytes / passes)

    def _multiply(self) -> None:
        np.matmul(self.left, self.right, out=self.product)

    def _pass(self) -> None:
        """Every thread reads and writes its part of all four arrays in place, as Adam does with three of them."""
        list(self.pool.map(_negate, self.parts))


def _negate(part: NDArray[np.float32]) -> None:
    """Changing the sign costs nothing beside the bytes, and each array is left by the time it comes round again."""
    for _ in range(PASSES):
        for array in part:
            np.negative(array, out=array)


def _seconds(do: Callable[[], None]) -> float:
    begin = perf_counter()
    do()
    return perf_counter() - begin
