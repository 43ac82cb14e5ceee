"""scikit-learn's own Adam and gradient, its learning rate a Python float"""

from lockstep_bench.backends.base import FloatArray, Problem, Split, Weights
from lockstep_bench.backends.scikit_learn import ScikitLearnTuned


class OnlyFloat32(ScikitLearnTuned):
    name = "scikit-learn-tuned--only-float32"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(problem, weights, train, device, threads)
        del self.model._compute_loss_grad

    def _adam(self, parameters: list[FloatArray], gradients: list[FloatArray]) -> None:
        problem, adam = self.problem, self.model._optimizer
        adam.t += 1
        adam.ms = [problem.beta_1 * m + (1 - problem.beta_1) * g for m, g in zip(adam.ms, gradients, strict=True)]
        adam.vs = [problem.beta_2 * v + (1 - problem.beta_2) * g**2 for v, g in zip(adam.vs, gradients, strict=True)]
        for parameter, m, v in zip(parameters, adam.ms, adam.vs, strict=True):
            parameter -= problem.alpha(adam.t) * m / (v**0.5 + problem.epsilon)
