"""a call for each step"""

from lockstep_bench.backends.base import IntArray
from lockstep_bench.backends.tensorflow import TensorFlow


class OneStep(TensorFlow):
    name = "tensorflow--one-step"

    def train(self, order: IntArray) -> float:
        size = self.problem.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        return sum(super(OneStep, self).train(batch) * len(batch) for batch in batches) / len(order)
