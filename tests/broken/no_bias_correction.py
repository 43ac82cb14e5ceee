"""Adam without its bias correction: as if infinitely many steps had been taken before the first."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "no-bias-correction"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        self.step = 1_000_000
