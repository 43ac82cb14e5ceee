"""scikit-learn's own gradient: only Adam replaced"""

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.scikit_learn import ScikitLearnTuned


class OnlyAdam(ScikitLearnTuned):
    name = "scikit-learn-tuned--only-adam"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        del self.model._compute_loss_grad
