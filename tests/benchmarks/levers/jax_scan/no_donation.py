"""state not donated"""

import inspect

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.jax import JaxScan


class NoDonation(JaxScan):
    name = "jax-scan--no-donation"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        import jax

        super().build(problem, weights, train, device, threads)
        self.run = jax.jit(inspect.unwrap(self.run))
