"""The L2 regularisation of 1e-4 that scikit-learn applies by default."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.scikit_learn import ScikitLearn


class Broken(ScikitLearn):
    name: ClassVar[str] = "l2-1e-4"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        self.model.set_params(alpha=1e-4)
