"""Trains when its weights or predictions are asked for, off the clock; its steps are below the dense floor."""

# ruff: noqa: D101, D102

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import FloatArray, IntArray, NDArray, Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Cheat(NumPy):
    name: ClassVar[str] = "defers-training"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        self.untrained: list[IntArray] = []
        self.loss = 2.3

    def train(self, order: IntArray) -> float:
        self.untrained.append(order)
        return self.loss

    def weights(self) -> Weights:
        self._catch_up()
        return super().weights()

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        self._catch_up()
        return super().predict(images)

    def _catch_up(self) -> None:
        while self.untrained:
            self.loss = super().train(self.untrained.pop(0))
