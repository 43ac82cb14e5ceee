"""twice as many parts as threads, so that a part's activations and deltas fit into the nearest cache together"""

from lockstep_bench.backends import numba
from lockstep_bench.backends.base import Problem, Split, Weights


class NarrowParts(numba.Numba):
    name = "numba--narrow-parts"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, 2 * threads)
