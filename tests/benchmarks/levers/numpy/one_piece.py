"""Adam over all parameters at once"""

from lockstep_bench.backends import numpy
from lockstep_bench.backends.base import Problem, Split, Weights


class OnePiece(numpy.NumPy):
    name = "numpy--one-piece"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        numpy.CHUNK = 1_000_000
        super().build(problem, weights, train, device, threads)
