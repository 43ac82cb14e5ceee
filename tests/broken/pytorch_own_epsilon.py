"""Adam's epsilon where PyTorch puts it: beside the bias-corrected second moment."""

from dataclasses import replace
from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorch


class Broken(PyTorch):
    name: ClassVar[str] = "pytorch-own-epsilon"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        super().build(replace(problem, epsilon_placement="corrected"), weights, train, device, threads)
