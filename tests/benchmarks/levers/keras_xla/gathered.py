"""a dataset of indices, whose images TensorFlow gathers"""

from lockstep_bench.backends.base import IntArray, Problem, Split, Weights
from lockstep_bench.backends.keras import KerasXla


class Gathered(KerasXla):
    name = "keras-xla--gathered"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        import tensorflow as tf

        super().build(problem, weights, train, device, threads)
        self.tensors = tf.constant(self.images), tf.constant(self.targets)

    def train(self, order: IntArray) -> float:
        import tensorflow as tf

        images, targets = self.tensors
        batches = tf.data.Dataset.from_tensor_slices(order).batch(self.problem.batch_size)
        pairs = batches.map(lambda batch: (tf.gather(images, batch), tf.gather(targets, batch)))
        return float(self.model.fit(pairs, shuffle=False, verbose=0).history["loss"][0])
