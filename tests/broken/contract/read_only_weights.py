"""`weights()` returns arrays that cannot be written into, as `np.asarray` of a JAX array does."""

from typing import ClassVar

from lockstep_bench.backends.base import Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "read-only-weights"

    def weights(self) -> Weights:
        weights = super().weights()
        for array in weights:
            array.flags.writeable = False
        return weights
