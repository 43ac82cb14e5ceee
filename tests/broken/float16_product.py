"""The hidden product in half precision: its inputs rounded to float16, its sums in float32, as tensor cores have it."""

from typing import Any, ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorch


def rounded(tensor: Any) -> Any:
    """Round to float16's 10 bits of mantissa and its range; the gradient passes through as if nothing were rounded."""
    return tensor + (tensor.half().float() - tensor).detach()


class Broken(PyTorch):
    name: ClassVar[str] = "float16-product"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        from torch.nn.functional import linear

        super().build(problem, weights, train, device, threads)
        hidden = self.model[0]
        hidden.forward = lambda x: linear(rounded(x), rounded(hidden.weight), hidden.bias)
