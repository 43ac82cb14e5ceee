"""as many parts as threads"""

from lockstep_bench.backends import numba
from lockstep_bench.backends.base import Problem, Split, Weights


class WideParts(numba.NumbaSparse):
    name = "numba-sparse--wide-parts"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        numba.PARTS = 1
        super().build(problem, weights, train, device, threads)
