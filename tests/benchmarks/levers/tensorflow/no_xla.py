"""without XLA"""

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.tensorflow import TensorFlow


class NoXla(TensorFlow):
    name = "tensorflow--no-xla"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        import tensorflow as tf

        super().build(problem, weights, train, device, threads)
        self.run = tf.function(self.run.python_function, reduce_retracing=True)
