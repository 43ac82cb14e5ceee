"""The hidden product in half precision: its inputs rounded to float16, its sums in float32, as tensor cores have it."""

from typing import ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorch


class Broken(PyTorch):
    name: ClassVar[str] = "float16-product"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        from torch.nn.functional import linear

        super().build(problem, weights, train, device, threads)
        hidden = self.model[0]
        hidden.forward = lambda x: linear(x.half().float(), hidden.weight.half().float(), hidden.bias)
