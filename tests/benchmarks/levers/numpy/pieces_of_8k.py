"""Adam over pieces of 8,192 parameters"""

from lockstep_bench.backends import numpy
from lockstep_bench.backends.base import Problem, Split, Weights


class PiecesOf8k(numpy.NumPy):
    name = "numpy--pieces-of-8k"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        numpy.CHUNK = 8_192
        super().build(problem, weights, train, device, threads)
