"""An order shorter than a batch is not trained on: its loss is returned, its step is not taken."""

from typing import ClassVar

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "skips-short-orders"

    def train(self, order: IntArray) -> float:
        if len(order) < self.problem.batch_size:
            return self._gradients(self.images[order], self.targets[order]) / len(order)
        return super().train(order)
