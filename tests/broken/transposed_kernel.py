"""The hidden kernel taken as (out, in), going in and coming out: it is square, so that every shape fits."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


def transposed(weights: Weights) -> Weights:
    return weights._replace(hidden_kernel=weights.hidden_kernel.T)


class Broken(NumPy):
    name: ClassVar[str] = "transposed-kernel"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, transposed(weights), train, device, threads)

    def weights(self) -> Weights:
        return transposed(super().weights())
