"""The given output bias is kept, not copied: whoever writes into it later changes the network."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "shares-the-given-weights"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        self.given, self.start = weights.output_bias, weights.output_bias.copy()

    def weights(self) -> Weights:
        weights = super().weights()
        return weights._replace(output_bias=weights.output_bias + self.given - self.start)
