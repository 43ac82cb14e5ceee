"""The reference with about 10 % of extra work in every step, which it times: the instrument of known_slowdown.py.

It times and prints, which no backend may otherwise.
"""

from time import perf_counter

import numpy as np

from lockstep_bench.backends.base import IntArray, Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy

PASSES = 140
"""Square roots of 4,096 numbers that many times: a tenth of a step, on numbers that fit into the nearest cache."""


class Slowed(NumPy):
    name = "numpy-slowed"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        self.values = np.linspace(1, 2, 4096, dtype=np.float32)
        self.roots = np.empty_like(self.values)

    def train(self, order: IntArray) -> float:
        self.extra_seconds = 0.0
        begin = perf_counter()
        loss = super().train(order)
        print(f"extra {self.extra_seconds:.6f} of {perf_counter() - begin:.6f}", flush=True)
        return loss

    def _adam(self) -> None:
        super()._adam()
        begin = perf_counter()
        for _ in range(PASSES):
            np.sqrt(self.values, out=self.roots)
        self.extra_seconds += perf_counter() - begin
