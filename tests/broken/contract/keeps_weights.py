"""A second `build` goes on with the first one's weights."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "keeps-weights"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        kept = self.weights() if hasattr(self, "parameter") else weights
        super().build(problem, kept, train, device, threads)
