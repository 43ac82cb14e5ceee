"""Takes every CPU that there is, where it was given fewer; its affinity after each epoch shows it."""

# ruff: noqa: D101, D102

import os
from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Cheat(NumPy):
    name: ClassVar[str] = "takes-cpus"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
