"""Images are centred on those they are predicted with."""

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import FloatArray, NDArray
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "normalises-over-the-batch"

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        return super().predict(images - images.mean(axis=0))
