"""Adam over pieces of 131,072 parameters"""

from lockstep_bench.backends import numpy
from lockstep_bench.backends.base import Problem, Split, Weights


class PiecesOf128k(numpy.NumPy):
    name = "numpy--pieces-of-128k"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        numpy.CHUNK = 131_072
        super().build(problem, weights, train, device, threads)
