"""denormal numbers flushed to zero"""

from lockstep_bench.backends.base import Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorchTuned


class FlushDenormal(PyTorchTuned):
    name = "pytorch-tuned--flush-denormal"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        import torch

        super().build(problem, weights, train, device, threads)
        torch.set_flush_denormal(True)
