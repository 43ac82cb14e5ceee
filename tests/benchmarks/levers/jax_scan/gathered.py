"""images gathered before the loop"""

import numpy as np

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.jax import JaxScan


class Gathered(JaxScan):
    name = "jax-scan--gathered"

    def train(self, order: IntArray) -> float:
        images, labels = self.images, self.labels
        self.images, self.labels = images[order], labels[order]
        loss = super().train(np.arange(len(order)))
        self.images, self.labels = images, labels
        return loss
