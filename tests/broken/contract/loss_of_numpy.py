"""The loss is NumPy's scalar, not Python's float."""

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "loss-of-numpy"

    def train(self, order: IntArray) -> float:
        return np.float64(super().train(order))
