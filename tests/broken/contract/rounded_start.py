"""Initial weights rounded to half precision on the way in."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "rounded-start"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        rounded = Weights(*(array.astype("float16").astype(problem.dtype) for array in weights))
        super().build(problem, rounded, train, device, threads)
