"""`fit` on arrays, of which Keras makes a dataset itself"""

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.keras import Keras, KerasXla


class Arrays(KerasXla):
    name = "keras-xla--arrays"

    def train(self, order: IntArray) -> float:
        return Keras.train(self, order)
