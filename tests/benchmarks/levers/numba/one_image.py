"""forward one image at a time: kernel rows loaded for each"""

from lockstep_bench.backends import numba
from lockstep_bench.backends.base import Problem, Split, Weights


class OneImage(numba.Numba):
    name = "numba--one-image"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        numba.IMAGES = (1,)
        super().build(problem, weights, train, device, threads)
