"""`predict` returns the logarithms of the probabilities."""

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import FloatArray, NDArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "predicts-logarithms"

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        return np.log(super().predict(images))
