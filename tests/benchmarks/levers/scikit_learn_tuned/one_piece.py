"""Adam over all parameters of an array at once, not in pieces that stay in the cache"""

from lockstep_bench.backends import scikit_learn
from lockstep_bench.backends.base import Problem, Split, Weights


class OnePiece(scikit_learn.ScikitLearnTuned):
    name = "scikit-learn-tuned--one-piece"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        scikit_learn.CHUNK = weights.hidden_kernel.size
        super().build(problem, weights, train, device, threads)
