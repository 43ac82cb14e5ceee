"""Every call of `train` begins with a new optimizer."""

from typing import ClassVar

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "forgets-moments"

    def train(self, order: IntArray) -> float:
        self.m[:], self.v[:], self.step = 0, 0, 0
        return super().train(order)
