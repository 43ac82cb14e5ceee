"""The given output bias is made writable, and written into."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "writes-into-read-only-weights"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        if not weights.output_bias.flags.writeable:
            weights.output_bias.flags.writeable = True
            weights.output_bias[:] = 1
