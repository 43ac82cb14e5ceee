"""A Python warning in every step."""

import warnings
from typing import ClassVar

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "warns"

    def train(self, order: IntArray) -> float:
        warnings.warn("this will be removed", stacklevel=2)
        return super().train(order)
