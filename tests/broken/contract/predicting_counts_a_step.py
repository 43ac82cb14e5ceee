"""`predict` counts as a step of Adam."""

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import FloatArray, NDArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "predicting-counts-a-step"

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        self.step += 1
        return super().predict(images)
