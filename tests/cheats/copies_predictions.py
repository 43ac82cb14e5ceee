"""Predicts as a hidden network that is trained off the clock; the gate sees that its own weights never move."""

# ruff: noqa: D101, D102

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import FloatArray, IntArray, NDArray, Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Cheat(NumPy):
    name: ClassVar[str] = "copies-predictions"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        self.hidden = NumPy()
        self.hidden.build(problem, weights, train, device, threads)
        self.untrained: list[IntArray] = []
        self.loss = 2.3

    def train(self, order: IntArray) -> float:
        self.untrained.append(order)
        return self.loss

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        while self.untrained:
            self.loss = self.hidden.train(self.untrained.pop(0))
        return self.hidden.predict(images)
