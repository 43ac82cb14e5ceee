"""Label smoothing of 0.01."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorch


class Broken(PyTorch):
    name: ClassVar[str] = "label-smoothing"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        import torch

        super().build(problem, weights, train, device, threads)
        self.loss = torch.nn.CrossEntropyLoss(label_smoothing=0.01)
