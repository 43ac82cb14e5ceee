"""Inductor's C++ wrapper in place of its Python one"""

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorchTuned


class CppWrapper(PyTorchTuned):
    name = "pytorch-tuned--cpp-wrapper"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        import torch

        super().build(problem, weights, train, device, threads)
        self.compiled = torch.compile(self.eager, fullgraph=True, dynamic=False, options={"cpp_wrapper": True})
