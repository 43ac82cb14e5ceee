"""A second `build` goes on with the first one's moments and step count."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.numpy import NumPy


class Broken(NumPy):
    name: ClassVar[str] = "keeps-moments"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        kept = {name: getattr(self, name) for name in ("m", "v", "step") if hasattr(self, name)}
        super().build(problem, weights, train, device, threads)
        vars(self).update(kept)
