"""The loss of a batch is computed once its step is taken."""

from typing import ClassVar

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "loss-after-step"

    def train(self, order: IntArray) -> float:
        size, losses = self.problem.batch_size, 0.0
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            super().train(batch)
            losses += self._gradients(self.images[batch], self.targets[batch])
        return losses / len(order)
