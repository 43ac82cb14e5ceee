"""The short last batch dropped, as `drop_last` and `drop_remainder` do."""

from typing import ClassVar

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "dropped-short-batch"

    def train(self, order: IntArray) -> float:
        return super().train(order[: len(order) - len(order) % self.problem.batch_size])
