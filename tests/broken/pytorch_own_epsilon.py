"""Epsilon where PyTorch puts it: added to sqrt(v / (1 - beta_2**t))."""

from typing import ClassVar

from lockstep_bench.backends.pytorch import PyTorch


class Broken(PyTorch):
    name: ClassVar[str] = "pytorch-own-epsilon"

    def _epsilon(self, step: int) -> float:
        return self.problem.epsilon
