"""the same step, not compiled"""

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorchTuned


class Eager(PyTorchTuned):
    name = "pytorch-tuned--eager"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        self.compiled = self.eager
