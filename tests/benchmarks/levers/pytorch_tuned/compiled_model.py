"""the idiomatic loop with `Adam(fused=True)` and the model compiled"""

from typing import Any, ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorch


class CompiledModel(PyTorch):
    name = "pytorch-tuned--compiled-model"
    programs: ClassVar[tuple[str, ...]] = ("g++",)

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        import torch

        super().build(problem, weights, train, device, threads)
        self.model = torch.compile(self.model)

    def _optimizer(self) -> Any:
        optimizer = super()._optimizer()
        for group in optimizer.param_groups:
            group["fused"] = True
        return optimizer
