"""The softmax derivative without its coupling term: as if each hidden unit depended on its own input alone."""

from typing import ClassVar

from lockstep_bench.backends.base import FloatArray, Problem, Split, Weights
from lockstep_bench.backends.scikit_learn import ScikitLearn


def uncoupled(activations: FloatArray, delta: FloatArray) -> None:
    delta *= activations


class Broken(ScikitLearn):
    name: ClassVar[str] = "no-coupling-term"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        from sklearn.neural_network import _base

        super().build(problem, weights, train, device, threads)
        _base.DERIVATIVES["softmax"] = uncoupled
