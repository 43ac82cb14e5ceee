"""Adam over pieces of 32,768 parameters"""

from lockstep_bench.backends import numpy
from lockstep_bench.backends.base import Problem, Split, Weights


class PiecesOf32k(numpy.NumPy):
    name = "numpy--pieces-of-32k"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        numpy.CHUNK = 32_768
        super().build(problem, weights, train, device, threads)
