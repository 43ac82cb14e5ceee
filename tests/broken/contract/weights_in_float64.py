"""`weights()` in float64, whatever the Problem says."""

from typing import ClassVar

from lockstep_bench.backends.base import Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "weights-in-float64"

    def weights(self) -> Weights:
        return Weights(*(array.astype("float64") for array in self.parameter))
