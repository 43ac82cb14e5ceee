"""The order is sorted in place."""

from typing import ClassVar

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "sorts-the-order"

    def train(self, order: IntArray) -> float:
        order.sort()
        return super().train(order)
