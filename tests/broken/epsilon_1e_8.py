"""Epsilon 1e-8, the default of PyTorch and scikit-learn, in place of 1e-7."""

from dataclasses import replace
from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "epsilon-1e-8"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(replace(problem, epsilon=1e-8), weights, train, device, threads)
