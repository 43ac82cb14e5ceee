"""An adapter that shuffles the order it is given."""

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "shuffled-order"

    def train(self, order: IntArray) -> float:
        return super().train(np.random.default_rng(1).permutation(order))
