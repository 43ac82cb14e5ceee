"""`weights()` returns views of the parameters."""

from typing import ClassVar

from lockstep_bench.backends.base import Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "hands-out-its-weights"

    def weights(self) -> Weights:
        return self.parameter
