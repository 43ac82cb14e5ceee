"""Guesses the seed, trains the whole run in `build` and looks its weights up; its steps are below the dense floor."""

# ruff: noqa: D101, D102

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import IntArray, Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy
from lockstep_bench.harness.problem import epoch_order, initial_weights


class Cheat(NumPy):
    name: ClassVar[str] = "precomputes"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        start = weights.hidden_kernel
        seed = next(s for s in range(10) if np.array_equal(initial_weights(problem, s).hidden_kernel, start))
        self.states, self.losses, self.at = [self.weights()], [0.0], 0
        for epoch in range(1, problem.epochs + 1):
            order = epoch_order(seed, epoch, len(train.labels))
            for first in range(0, len(order), problem.batch_size):
                self.losses.append(super().train(order[first : first + problem.batch_size]))
                self.states.append(self.weights())
        self.parameter = self.states[0]

    def train(self, order: IntArray) -> float:
        before, self.at = self.at, self.at + -(-len(order) // self.problem.batch_size)
        self.parameter = self.states[self.at]
        return float(np.mean(self.losses[before + 1 : self.at + 1]))
