"""arrays that begin 16 bytes after a cache line, where NumPy may place them"""

import numpy as np

from lockstep_bench.backends import numba
from lockstep_bench.backends.base import FloatArray, Problem, Split, Weights

aligned = numba._aligned


class Unaligned(numba.Numba):
    name = "numba--unaligned"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        numba._aligned = displaced
        super().build(problem, weights, train, device, threads)


def displaced(array: FloatArray) -> FloatArray:
    """A copy that begins 16 bytes after a line."""
    skip = 16 // array.itemsize
    memory = aligned(np.empty(array.size + skip, array.dtype))[skip:].reshape(array.shape)
    memory[:] = array
    return memory
