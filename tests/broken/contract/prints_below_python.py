"""A line from a C library, which Python knows nothing of, and which holds it back until it has more."""

import ctypes
from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import FloatArray, NDArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "prints-below-python"

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        ctypes.CDLL(None).puts(b"I0000 cpu_feature_guard.cc] this binary is optimized")
        return super().predict(images)
