"""A line on standard error that Python knows nothing of, as a C library's log."""

import os
from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import FloatArray, NDArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "prints-below-python"

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        os.write(2, b"I0000 cpu_feature_guard.cc] this binary is optimized\n")
        return super().predict(images)
