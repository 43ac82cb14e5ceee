"""Biases that start as scikit-learn starts them, uniform like the kernels, not at zero."""

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "random-biases"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        random = np.random.default_rng(1)
        weights = weights._replace(
            hidden_bias=random.uniform(-0.06, 0.06, weights.hidden_bias.shape).astype(problem.dtype),
            output_bias=random.uniform(-0.09, 0.09, weights.output_bias.shape).astype(problem.dtype),
        )
        super().build(problem, weights, train, device, threads)
