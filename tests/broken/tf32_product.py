"""The hidden product as TF32 has it: the mantissas of its inputs rounded to 10 bits, its sums in float32."""

from typing import Any, ClassVar

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorch


def rounded(tensor: Any) -> Any:
    """Round away the lower 13 of a float32's 23 mantissa bits; the gradient passes as if nothing were rounded."""
    import torch

    bits = tensor.detach().contiguous().view(torch.int32)
    short = ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)
    return tensor + (short - tensor.detach())


class Broken(PyTorch):
    name: ClassVar[str] = "tf32-product"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        from torch.nn.functional import linear

        super().build(problem, weights, train, device, threads)
        hidden = self.model[0]
        hidden.forward = lambda x: linear(rounded(x), rounded(hidden.weight), hidden.bias)
