"""A softmax before `CrossEntropyLoss`, which takes one itself: probabilities passed where logits belong."""

from typing import ClassVar

import numpy as np

from lockstep_bench.backends.base import FloatArray, NDArray, Problem, Split, Weights
from lockstep_bench.backends.pytorch import PyTorch


class Broken(PyTorch):
    name: ClassVar[str] = "probabilities-for-logits"

    def build(self, problem: Problem, weights: Weights, train: Split, device: str, threads: int) -> None:
        import torch

        super().build(problem, weights, train, device, threads)
        self.model.append(torch.nn.Softmax(dim=1))

    def predict(self, images: NDArray[np.float32]) -> FloatArray:
        import torch

        with torch.no_grad():
            probabilities: FloatArray = self.model(torch.tensor(images, dtype=self.images.dtype)).numpy()
        return probabilities
