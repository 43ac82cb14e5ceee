"""without the JIT"""

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.tinygrad import Tinygrad


class NoJit(Tinygrad):
    name = "tinygrad--no-jit"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        self.jitted = self.eager
